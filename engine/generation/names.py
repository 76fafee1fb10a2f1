"""The trie of all entity names, as a language model generates them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.generation.tokenizers import encode_after
from engine.generation.trie import Trie

BEFORE = "and"
"""The word that a prompt ends with: what is generated comes right after it."""


def name_trie(tokenizer: Any, names: Sequence[str]) -> Trie:
    """Return the trie of all names; the id of an entity is its place in ``names``.

    A name is the tokens of ``" {name}.\\n"`` after the prompt's last word; the full stop and the line
    break end it, so that no name begins another (METHODS, GenExpan).
    """
    return Trie.build(encode_after(tokenizer, [f" {name}.\n" for name in names], BEFORE))
