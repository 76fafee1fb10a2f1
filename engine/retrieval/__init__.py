"""Retrieve by vectors: the index, the views, distributions, window search."""
