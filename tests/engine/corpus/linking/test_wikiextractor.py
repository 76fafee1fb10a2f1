"""What WikiExtractor writes: links as in HTML, their signs perhaps as entities."""

from __future__ import annotations

import html

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.linking.wikiextractor import read_wikiextractor


def shown(text: str) -> tuple[str, list[tuple[str, str]]]:
    found = read_wikiextractor(text)
    return found.text, [(found.text[a:b], target) for a, b, target in found.links]


@pytest.mark.parametrize(
    ("given_text", "text", "links"),
    [
        ('A <a href="Lake%20Vessel">lake</a>.', "A lake.", [("lake", "Lake%20Vessel")]),
        ("A &lt;a href=&quot;R%26D&quot;&gt;R&amp;D&lt;/a&gt; &lt; b", "A R&D < b", [("R&D", "R%26D")]),
        ("<A class='x' HREF='B'><b>b</b>c</a> d</a>", "bc d", [("bc", "B")]),
        ('<a href="A">a <a href="B">b</a>', "a b", [("a ", "A"), ("b", "B")]),
        ('<a name="x">a</a> <a href=C>c', "a c", []),
        ("one\ntwo", "one\n\ntwo", []),
        ("<p>3 < 4 &amp; 5</p><a href='D'></a>", "3 < 4 & 5", []),
    ],
)
def test_tags_go_and_links_are_places(given_text: str, text: str, links: list[tuple[str, str]]) -> None:
    assert shown(given_text) == (text, links)


WORD = st.text(st.sampled_from("abé中 &<"), min_size=1, max_size=6)


@given(st.lists(st.tuples(WORD, WORD), max_size=5), st.booleans())
def test_every_link_holds_its_surface(parts: list[tuple[str, str]], escaped: bool) -> None:
    """However often tags are written as entities, the text is as it was."""
    pieces = [f'{html.escape(a)}<a href="T{n}">{html.escape(b)}</a>' for n, (a, b) in enumerate(parts)]
    text = "".join(html.escape(piece) if escaped else piece for piece in pieces)
    found = read_wikiextractor(text)
    if not escaped:
        assert [(found.text[a:b], t) for a, b, t in found.links] == [
            (b, f"T{n}") for n, (_, b) in enumerate(parts)
        ]
        assert found.text == "".join(a + b for a, b in parts)
    else:
        assert [t for _, _, t in found.links] == [f"T{n}" for n in range(len(parts))]


@given(st.text(st.sampled_from("<a href='x'>/ b&lt;"), max_size=60))
def test_whatever_is_written_links_are_places(text: str) -> None:
    found = read_wikiextractor(text)
    at = 0
    for start, end, _ in found.links:
        assert at <= start < end <= len(found.text)
        at = end
