"""Read outside formats, one a file."""
