"""The corpus: outside formats read into one schema, and sentences turned into model input."""
