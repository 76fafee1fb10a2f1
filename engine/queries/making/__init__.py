"""Make queries with known answers from entities' attributes (UltraWiki §4.1, step 4)."""
