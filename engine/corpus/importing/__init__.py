"""From records of a source to the corpus of a workspace."""
