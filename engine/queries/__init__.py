"""Read query files, and write results."""
