"""Which entity a wiki's title stands for."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.corpus.linking.found import Links
from engine.corpus.linking.lexicon import Lexicon
from engine.corpus.linking.markup import Link
from engine.corpus.linking.matcher import Verdict
from engine.corpus.linking.titles import Titles, read_redirects, redirects_to, title_key, write_redirects

NAMES = ["Mira", "Lake Vessel", "mining", "C++", "Vessel"]
ALIASES: list[list[str]] = [["Mira (star)", "Wonder"], ["Vessel"], [], ["Wonder"], []]
LEXICON = Lexicon(NAMES, ALIASES)


@pytest.mark.parametrize(
    ("title", "key"),
    [
        ("lake_Vessel", "Lake Vessel"),
        (" :lake  Vessel#Shore", "Lake Vessel"),
        ("C%2B%2B", "C++"),
        ("R%26D", "R&D"),
        ("A &amp; B", "A & B"),
        ("%C3%A9t%C3%A9", "Été"),
        ("100% pure", "100% pure"),
        ("ßtest", "ßtest"),
        ("#below", ""),
        ("A–B", "A-B"),
    ],
)
def test_titles_of_a_page_have_one_key(title: str, key: str) -> None:
    assert title_key(title) == key


def test_names_come_before_aliases_and_these_before_redirects() -> None:
    redirects = redirects_to([("Vessel", "mira"), ("the star", "Mira_(star)"), ("pit", "gone")], LEXICON)
    assert redirects == {"Vessel": [0], "The star": [0]}
    titles = Titles(LEXICON, redirects)
    found = {
        t: titles.find(t) for t in ("mira", "Mining", "Vessel", "wonder", "the star", "pit", "", "C%2B%2B")
    }
    assert {t: one.entities if one else None for t, one in found.items()} == {
        "mira": (0,),
        "Mining": (2,),
        "Vessel": (4,),
        "wonder": (0, 3),
        "the star": (0,),
        "pit": None,
        "": None,
        "C%2B%2B": (3,),
    }
    assert [LEXICON.keys[one.key] for one in found.values() if one][:4] == [
        "mira",
        "mining",
        "vessel",
        "wonder",
    ]
    assert (one := found["the star"])
    assert LEXICON.keys[one.key] == "mira"


def test_a_redirect_to_an_ambiguous_title_is_ambiguous() -> None:
    redirects = redirects_to([("W", "Wonder"), ("W", "Mira"), ("W", "mining")], LEXICON)
    assert redirects == {"W": [0, 3, 2]}
    assert (one := Titles(LEXICON, redirects).find("w"))
    assert one.entities == (0, 2, 3)


def test_links_are_matches_or_counted() -> None:
    counts = Links()
    links = [Link(0, 4, "mira"), Link(5, 9, "Wonder"), Link(10, 12, "nobody"), Link(13, 14, "Nobody")]
    found = Titles(LEXICON, {}).matches(links, counts)
    assert [(one.start, one.end, one.entities, one.verdict) for one in found] == [
        (0, 4, (0,), Verdict.LINKED),
        (5, 9, (0, 3), Verdict.AMBIGUOUS),
    ]
    assert counts == Links(number=4, elsewhere=2, titles={"Nobody": 2})


def test_redirects_are_read_as_they_were_written(tmp_path: Path) -> None:
    keys = set()
    for redirects in ({}, {"A": [1]}, {"A": [1, 0], "B": [2]}, {"A": [1], "B": [2]}):
        keys.add(write_redirects(tmp_path / "r.parquet", redirects))
        assert read_redirects(tmp_path / "r.parquet") == redirects
    assert len(keys) == 4
