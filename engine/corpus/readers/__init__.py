"""Readers of outside formats, one a file."""
