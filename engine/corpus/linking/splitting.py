"""Split a text into sentences, and bring each onto one line; places in the text are kept track of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

import sentencex

from engine.text.spelling import nfc

Span = tuple[int, int]
"""Characters of a text, the end exclusive."""

_WIDE_SPACE = re.compile(r"(?![\x00-\x7f])\s")


def sentence_spans(text: str, language: str, whole: Sequence[Span] = ()) -> Iterator[Span]:
    """Yield the places of a text's sentences, one behind the other; together they are the text.

    Args:
        text: in plain text.
        language: by whose rules it is split, see :mod:`engine.corpus.linking.languages`.
        whole: places within which no sentence ends, in order.
    """
    start = end = 0
    inside = iter(whole)
    first, last = next(inside, (0, 0))
    # sentencex takes a space of several bytes behind an abbreviation for one of one byte, and panics.
    for piece in sentencex.segment(language, _WIDE_SPACE.sub(" ", text)):
        end += len(piece)
        while last and last <= end:
            first, last = next(inside, (0, 0))
        if not first < end < last:
            yield start, end
            start = end
    if start < end:
        yield start, end


def one_line(text: str, places: Sequence[Span] = ()) -> tuple[str, list[Span]]:
    """Return a sentence composed (NFC), with one plain space between words; and where places of it are then.

    A place does not begin or end with white space, nor within a sign that is composed: it grows by the rest
    of the sign. One that holds nothing else is at (0, 0).

    Args:
        text: of the sentence.
        places: in it.
    """
    composed = nfc(text)
    line = " ".join(composed.split())
    if not places:
        return line, []
    if composed != text:
        widened = [_whole_signs(text, *place) for place in places]
        places = [(len(nfc(text[:start])), len(nfc(text[:end]))) for start, end in widened]
    if line == composed:
        return line, [_trimmed(line, *place) for place in places]
    return line, [_moved(composed, *_trimmed(composed, *place)) for place in places]


def _whole_signs(text: str, start: int, end: int) -> Span:
    """Return a place with the whole of the signs that it begins and ends with."""
    while 0 < start < len(text) and _composes(text, start):
        start -= 1
    while 0 < end < len(text) and _composes(text, end):
        end += 1
    return start, end


def _composes(text: str, place: int) -> bool:
    """Return whether a sign composes with the two before it: three Hangul letters are one syllable."""
    sign, before = text[place], text[max(0, place - 2) : place]
    return unicodedata.combining(sign) > 0 or nfc(before + sign) != nfc(before) + nfc(sign)


def _trimmed(text: str, start: int, end: int) -> Span:
    held = text[start:end]
    found = held.strip()
    if not found:
        return 0, 0
    start += len(held) - len(held.lstrip())
    return start, start + len(found)


def _moved(text: str, start: int, end: int) -> Span:
    """Return where a trimmed place is once runs of white space are one space, and none is at the ends."""
    if start == end:
        return 0, 0
    before = " ".join(text[:start].split())
    first = len(before) + (before != "" and text[start - 1].isspace())
    return first, first + len(" ".join(text[start:end].split()))
