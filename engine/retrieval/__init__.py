"""The vector index and its similarities."""
