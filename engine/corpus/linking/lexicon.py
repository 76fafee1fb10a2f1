"""Hold all spellings of a table of entities, those that differ in case alone under one key."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple

from engine.storage.parts import content_key
from engine.text.spelling import fold, is_blank, match_key


class Shape(Enum):
    """What the case of a spelling says of it."""

    CASELESS = "caseless"
    WORD = "a word in lower case"
    WORDS = "several words in lower case"
    PROPER = "a name with capitals"


def shape_of(spelling: str) -> Shape:
    """Return the shape of a spelling."""
    lower = spelling.lower()
    if lower == spelling.upper():
        return Shape.CASELESS
    if lower != spelling:
        return Shape.PROPER
    return Shape.WORDS if " " in spelling else Shape.WORD


class Spelling(NamedTuple):
    """A spelling of an entity, with plain signs (:func:`engine.text.spelling.match_key`).

    Args:
        entity: its id.
        text: as the table has it.
        shape: of the text.
        words: how many it has.
    """

    entity: int
    text: str
    shape: Shape
    words: int

    @classmethod
    def of(cls, entity: int, text: str) -> Spelling:
        """Return the spelling of a text with plain signs."""
        return cls(entity, text, shape_of(text), text.count(" ") + 1)


def entities_of(spellings: Sequence[Spelling]) -> tuple[int, ...]:
    """Return the entities that have one of some spellings, ascending."""
    if len(spellings) == 1:
        return (spellings[0].entity,)
    return tuple(sorted({one.entity for one in spellings}))


class Lexicon:
    """The spellings of a table of entities.

    Args:
        names: of the entities.
        aliases: of each entity.
    """

    def __init__(self, names: Sequence[str], aliases: Sequence[Sequence[str]]) -> None:
        self.names = names
        self._aliases = aliases
        found: dict[str, list[Spelling]] = {}
        for entity, name in enumerate(names):
            for text in dict.fromkeys(map(match_key, (name, *aliases[entity]))):
                if not is_blank(text):
                    found.setdefault(fold(text), []).append(Spelling.of(entity, text))
        self.keys: list[str] = list(found)
        """Every spelling without case."""
        self.spellings: list[list[Spelling]] = list(found.values())
        """The spellings of each key."""

    @property
    def digest(self) -> str:
        """What changes with the table."""
        return content_key(json.dumps([list(self.names), [list(some) for some in self._aliases]]))

    def is_word(self, key: int) -> bool:
        """Return whether a key is one ordinary word, in lower case, for all entities that are spelt so."""
        return all(one.shape is Shape.WORD for one in self.spellings[key])
