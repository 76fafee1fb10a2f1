"""Training objectives, one a file, and their weighted sum."""
