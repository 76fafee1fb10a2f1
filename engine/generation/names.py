"""Build the trie of all entity names, as a language model generates them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.generation.prompts import LAST_WORD, name_text
from engine.generation.tokenizers import encode_after
from engine.generation.trie import Trie


def name_trie(tokenizer: Any, names: Sequence[str]) -> Trie:
    """Return the trie of all names; the id of an entity is its place in ``names``.

    A name is its tokens right after a prompt's last word; the full stop and the line break end it, so
    that no name begins another.
    """
    return Trie.build(encode_after(tokenizer, [name_text(name) for name in names], LAST_WORD))
