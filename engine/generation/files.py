"""Name what generation reads of a bundle; apart from its readers, which import the model libraries."""

from __future__ import annotations

LM_FILES = ("lm", "trie")
"""A bundle's folders with the language model and the trie of all names."""
