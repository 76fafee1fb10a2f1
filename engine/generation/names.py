"""Build the trie of all entity names, as a language model generates them, and check that it can be used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.errors import FormatError
from engine.generation.prompts import LAST_WORD, name_text, similar_text
from engine.generation.tokenizers import encode_after
from engine.generation.trie import MAX_TOKENS, Trie
from engine.models.plain_text import token_ids

SHOWN, SHOWN_CHARACTERS = 3, 40
"""Names that an error shows, and signs of each."""

ANOTHER = "another tokenizer (--tokenizer corpus trains one on the corpus, for a new model)"
"""The way out where a tokenizer cannot write names."""


def name_trie(tokenizer: Any, names: Sequence[str], positions: int | None = None) -> Trie:
    """Return the trie of all names; the id of an entity is its place in ``names``.

    A name is its tokens right after a prompt's last word; the full stop and the line break end it, so
    that no name begins another.

    Args:
        tokenizer: of the language model.
        names: of all entities, by id.
        positions: tokens that the model takes; None: any number.

    Raises:
        FormatError: a name is too long, none of its tokens is left, or the tokenizer drops the line break
            that ends a name; the names are shown.
    """
    ended, open_end = encode_after(tokenizer, [name_text("a"), name_text("a").rstrip("\n")], LAST_WORD)
    if ended == open_end:
        raise FormatError(
            f"the tokenizer drops line breaks, so that a name does not end where it ends; name {ANOTHER}"
        )
    sequences = encode_after(tokenizer, [name_text(name) for name in names], LAST_WORD)
    _check_lengths(tokenizer, names, np.fromiter(map(len, sequences), np.int64, len(names)), positions)
    try:
        return Trie.build(sequences)
    except FormatError as error:
        raise FormatError(f"names cannot be told apart by their tokens ({error}); name {ANOTHER}") from None


def made_one(trie: Trie, names: Sequence[str]) -> list[list[str]]:
    """Return the names that the tokenizer writes alike, so that they are generated and scored as one."""
    alike = np.flatnonzero(np.diff(trie.entity_starts) > 1)
    bounds = [(trie.entity_starts[place], trie.entity_starts[place + 1]) for place in alike]
    return [[names[entity] for entity in trie.entities[a:b].tolist()] for a, b in bounds]


def shown(name: str) -> str:
    """Return a name as a message shows it."""
    return repr(name) if len(name) <= SHOWN_CHARACTERS else f"{name[:SHOWN_CHARACTERS]!r}…"


def _check_lengths(tokenizer: Any, names: Sequence[str], lengths: Any, positions: int | None) -> None:
    """Refuse names that do not fit the trie, or twice into the model: one is scored after the other."""
    room, why = MAX_TOKENS, f"at most {MAX_TOKENS} are taken"
    if positions is not None:
        (template,) = token_ids(tokenizer, [similar_text("")])
        twice = (positions - len(template) - 1) // 2
        if twice < room:
            room, why = twice, f"a model of {positions} tokens takes two names of {twice} after one another"
    long = np.flatnonzero(lengths > room)
    if len(long):
        listed = [f"entity {i} ({shown(names[i])}) has {lengths[i]} tokens" for i in long[:SHOWN].tolist()]
        raise FormatError(
            f"{len(long)} of {len(names)} names are too long to be generated: {', '.join(listed)}; {why}; "
            "give them shorter names in the source (a long one can be an alias) and import again, or take a "
            "tokenizer of larger tokens (--vocab-size)"
        )
