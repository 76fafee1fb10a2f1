"""Tell which words may name a class, by their spelling and a list of stop words: English alone, no tagger."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from engine.text.plurals import is_plural, plural


def head_noun(word: str, knows: Callable[[str], bool]) -> str | None:
    """Return the plural that a word is, or that it has, as the last word of a class name; None: neither.

    Args:
        word: in lower case.
        knows: whether a word is a token of the model.
    """
    if not word.isalpha() or len(word) < 3 or word in stop_words():
        return None
    if is_plural(word):
        return word
    return plural(word) if knows(plural(word)) else None


def is_modifier(word: str, head: str) -> bool:
    """Return whether a word in lower case may stand in front of the last word of a class name."""
    return word.isalpha() and len(word) > 2 and word not in stop_words() and head not in (word, plural(word))


@cache
def stop_words() -> frozenset[str]:
    """Return English words that name nothing."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    return frozenset(ENGLISH_STOP_WORDS)
