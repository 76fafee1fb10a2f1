"""Write queries after Hearst's patterns for a masked language model (CGExpan, table 1).

Three kinds, each in the same six patterns: the class is masked, to be named; an entity of a class is masked,
to be represented; or an entity among others of a class. An entity is written out whole, whatever number of
tokens it has, and the mask is one token in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PATTERNS = (
    "{class_name} such as {names} .",
    "such {class_name} as {names} .",
    "{names} or other {class_name} .",
    "{names} and other {class_name} .",
    "{class_name} including {names} .",
    "{class_name} , especially {names} .",
)

MASK = "\ue000"
"""A sign of no text that stands for the mask: what a name spells cannot make another."""


class Masked(NamedTuple):
    """A text, and the characters [start, end) that are masked in it."""

    text: str
    start: int
    end: int


def query(pattern: int, class_name: str, names: Sequence[str]) -> Masked:
    """Return a pattern for a class and some of its entities; one of these has, or is, a :data:`MASK`."""
    whole = PATTERNS[pattern]
    together = " , ".join(names)
    if "other" not in whole and len(names) > 1:  # "or other" is the list's own "and"
        together = f"{' , '.join(names[:-1])} , and {names[-1]}"
    text = whole.format(class_name=class_name, names=together)
    place = text.index(MASK)
    return Masked(text, place, place + 1)


def spoken(name: str) -> str:
    """Return an entity's name as queries write it: in lower case, as the authors do."""
    return name.replace(MASK, "").lower()
