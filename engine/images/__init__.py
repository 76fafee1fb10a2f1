"""Fetch, decode and encode the images of a corpus, once, into patch features."""
