"""Query files in, result files out."""
