"""Read outside formats into one schema, and turn sentences into model input."""
