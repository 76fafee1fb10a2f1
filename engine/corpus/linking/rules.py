"""Decide whether a place that is spelt like a name may stand for it: by its case, and by its neighbours."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.corpus.linking.lexicon import Shape, Spelling

Case = Literal["shape", "exact", "any"]
Ambiguous = Literal["refuse", "all", "nearest"]

HEADLINE_LETTERS = 4
"""Letters that a name in capitals alone must have: "PARIS" is Paris, "US" is not "us"."""

GUESSED_WORDS = 2
"""Words of the longest name that may be part of one which the table lacks."""

_BEFORE = re.compile(r"(\w[\w.'’]*) $")
_IN_WORD = re.compile(r"\w")
_REACH = 40
"""Characters in front of a name in which the word before it is looked for."""


class LinkRules(BaseModel):
    """The rules by which a name in a text is a mention."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: Case = Field(
        default="shape",
        description="Take a name in what case: by its shape (a proper name as it is written or in capitals, "
        "an ordinary word also with a capital where the sentence begins, several ordinary words in any), "
        "exactly as it is written, or in any.",
    )
    unlisted_names: bool = Field(
        default=True,
        description="Take a proper name of one or two words as part of a longer one that the table lacks, "
        "and so for no mention, if a capitalised word stands next to it (Paris in Paris Hilton).",
    )
    compounds: bool = Field(
        default=True,
        description="Take a name that a hyphen joins to another word as part of a compound, and so for no "
        "mention (lion in lion-hearted).",
    )
    ambiguous: Ambiguous = Field(
        default="refuse",
        description="Refuse a spelling that several entities have, take it for all of them, or for the one "
        "whose other sentences and description have most words in common with this one.",
    )


def case_fits(spelling: Spelling, text: str, start: int, end: int, rule: Case) -> bool:
    """Return whether a place that is spelt like a name, but for case, is written as the rule wants it."""
    held, wanted = text[start:end], spelling.text
    if held == wanted or rule == "any" or spelling.shape is Shape.CASELESS:
        return True
    if rule == "exact":
        return False
    if spelling.shape is Shape.WORDS:
        return True
    if spelling.shape is Shape.WORD:
        return held == wanted[:1].upper() + wanted[1:] and _IN_WORD.search(text[:start]) is None
    same_but_first = held[1:] == wanted[1:]
    if same_but_first and (spelling.words > 1 or wanted[0].islower()):
        return True  # "ancient Egypt", and "IPhone" where a sentence begins
    return held.isupper() and sum(map(str.isalpha, held)) >= HEADLINE_LETTERS


def part_of_compound(text: str, start: int, end: int) -> bool:
    """Return whether a hyphen joins a place of a text, with plain signs, to a word beside it."""
    return (text[end : end + 1] == "-" and text[end + 1 : end + 2].isalnum()) or (
        start > 1 and text[start - 1] == "-" and text[start - 2].isalnum()
    )


def part_of_unlisted_name(spelling: Spelling, text: str, start: int, end: int) -> bool:
    """Return whether the capitals beside a proper name say that it is part of a longer one.

    A capitalised word after it says so of names of up to :data:`GUESSED_WORDS` words, one before it of a
    single word, unless the sentence begins there.
    """
    if spelling.shape is not Shape.PROPER or spelling.words > GUESSED_WORDS or not text[start].isupper():
        return False
    if text[end : end + 1] == " " and text[end + 1 : end + 2].isupper():
        return True
    if spelling.words > 1:
        return False
    before = _BEFORE.search(text, max(0, start - _REACH), start)
    return before is not None and before.group(1)[0].isupper() and before.start() > 0
