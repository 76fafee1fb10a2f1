"""Find the entities of a table in raw text."""
