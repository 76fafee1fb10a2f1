"""Entities from a language model: prompts, the trie of names, constrained search, likelihoods (GenExpan)."""
