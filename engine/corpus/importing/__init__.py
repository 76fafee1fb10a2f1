"""Import records of a source as the corpus of a workspace."""
