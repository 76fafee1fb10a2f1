"""Write down who asked, curated and published what: JSON lines in one file, read back by filters."""
