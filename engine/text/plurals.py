"""Tell English plurals by their spelling: what stands before "such as" is one."""

from __future__ import annotations

_IRREGULAR = {
    "child": "children",
    "fish": "fish",
    "foot": "feet",
    "goose": "geese",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "series": "series",
    "sheep": "sheep",
    "species": "species",
    "tooth": "teeth",
    "woman": "women",
}
_PLURALS = frozenset(_IRREGULAR.values())
_NO_PLURALS = ("ss", "us", "is", "'s")


def plural(word: str) -> str:
    """Return the plural of a noun in lower case."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return f"{word[:-1]}ies"
    return f"{word}s"


def is_plural(word: str) -> bool:
    """Return whether a word in lower case is spelt as a plural."""
    return word in _PLURALS or (len(word) > 3 and word.endswith("s") and not word.endswith(_NO_PLURALS))
