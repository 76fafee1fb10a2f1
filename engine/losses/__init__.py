"""Compute training objectives, one a file, and their weighted sum."""
