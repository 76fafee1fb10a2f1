"""Define the stages of a pipeline: each is a description (settings) and the worker that it opens."""
