"""Sentences and their places: nothing is lost, no place is cut, each place holds what it held."""

from __future__ import annotations

import unicodedata
from collections import Counter

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine.corpus.linking.splitting import one_line, sentence_spans
from engine.text.spelling import nfc

PIECES = [
    "A",
    "Mr",
    ".",
    "!",
    " ",
    "\n",
    "\n\n",
    "é",
    "中",
    "。",
    "\u00a0",
    "\u2003",
    "\u2028",
    "(",
    "1",
    "e\u0301",
]
TEXT = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=30)


@given(TEXT, st.sampled_from(["en", "de", "ja", "fr"]), st.data())
def test_sentences_are_the_text_and_cut_no_place(text: str, language: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
    whole = list(zip(edges[::2], edges[1::2], strict=False))
    found = list(sentence_spans(text, language, whole))
    assert "".join(text[a:b] for a, b in found) == text
    assert all(a < b for a, b in found)
    for start, end in whole:
        assert any(a <= start and end <= b for a, b in found)


@pytest.mark.parametrize("space", ["\u00a0", "\u2003", "\u2028", "\u3000"])
def test_a_wide_space_behind_an_abbreviation_ends_nothing(space: str) -> None:
    """sentencex alone panics here, which would end the worker."""
    text = f"Plan A{space}. It failed."
    assert list(sentence_spans(text, "en"))[-1][1] == len(text)


def test_a_sentence_goes_on_to_the_end_of_a_place() -> None:
    text = "He joined Yahoo! Inc. there. He left."
    (start,) = [text.index("Yahoo")]
    place = (start, text.index(" there"))
    split = [text[a:b].strip() for a, b in sentence_spans(text, "en", [place])]
    assert split == ["He joined Yahoo! Inc. there.", "He left."]


@given(TEXT.map(nfc), st.data())
def test_places_hold_what_they_held(text: str, data: st.DataObject) -> None:
    edges = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    places = list(zip(edges[::2], edges[1::2], strict=False))
    line, moved = one_line(text, places)
    assert line == " ".join(text.split())
    for (start, end), (a, b) in zip(places, moved, strict=True):
        assert line[a:b] == " ".join(text[start:end].split())
        assert a < b or (a, b) == (0, 0)


@given(st.lists(st.text(st.sampled_from("ae\u0301\u0323q \u00e9\u1100\u1161\u11a8"), max_size=4), max_size=6))
@example(["\u1100", "\u1161", "\u11a8"])
def test_a_place_has_whole_signs_only(pieces: list[str]) -> None:
    """A mark or a vowel sign that composes with what stands before a place takes that into the place."""
    text = "".join(pieces)
    places, at = [], 0
    for piece in pieces:
        places.append((at, at + len(piece)))
        at += len(piece)
    line, moved = one_line(text, places)
    for (start, end), (a, b) in zip(places, moved, strict=True):
        if not text[start:end].strip():
            continue
        assert signs(text[start:end]) <= signs(line[a:b])
        assert line == nfc(line[:a]) + nfc(line[a:b]) + nfc(line[b:])


def signs(text: str) -> Counter[str]:
    """The visible signs of a text, each as its base and its marks."""
    return Counter(unicodedata.normalize("NFD", "".join(text.split())))
