"""Images of a corpus: fetched, decoded, and encoded once into patch features."""
