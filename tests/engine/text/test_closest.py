"""Test suggestions among many texts against those of comparing with all, and that their work is bounded."""

from __future__ import annotations

import random
from typing import Any

import pytest
from rapidfuzz import fuzz, process

from engine.text import closest
from engine.text.closest import CUTOFF, ClosestTexts
from examples.tables import load_table

NAMES = [
    *load_table("countries"),
    "University of Nowhere",
    "日本橋",
    "日本海",
    "ประเทศไทย",
    "São Tomar",
    "K 2",
    "Straße nach Nirgendwo",
]


def of_all(text: str, n: int) -> list[int]:
    known = [name.casefold() for name in NAMES]
    found = process.extract(text.strip().casefold(), known, scorer=fuzz.WRatio, limit=n, score_cutoff=CUTOFF)
    return [place for _, _, place in found]


def misspelt(n: int) -> list[str]:
    """Names with a letter left out, doubled, exchanged or replaced, and words in another order."""
    chance = random.Random(3)
    found = []
    for name in chance.choices([name for name in NAMES if len(name) > 3], k=n):
        at = chance.randrange(len(name) - 1)
        found.append(
            chance.choice(
                [
                    name[:at] + name[at + 1 :],
                    name[:at] + name[at] + name[at:],
                    name[:at] + name[at + 1] + name[at] + name[at + 2 :],
                    name[:at] + "x" + name[at + 1 :],
                    " ".join(reversed(name.upper().split())),
                ]
            )
        )
    return found


@pytest.mark.parametrize(
    "text", ["Jpan", "nowhere university", "日本", "sao tomar", "strasse", "", " ", "zz", "\ud800"]
)
def test_few_texts_are_all_compared(text: str) -> None:
    assert ClosestTexts(NAMES).closest(text, 9) == of_all(text, 9)


def test_among_many_the_same_is_suggested_first_as_by_comparing_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = misspelt(150)
    assert all(ClosestTexts(NAMES).closest(text, 3) == of_all(text, 3) for text in asked)
    monkeypatch.setattr(closest, "ALL", 0)
    monkeypatch.setattr(closest, "CANDIDATES", 60)
    indexed = ClosestTexts(NAMES)
    assert [indexed.closest(text, 3)[:1] for text in asked] == [of_all(text, 1) for text in asked]


def test_however_many_there_are_few_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    extract = process.extract

    def counted(text: str, known: list[str], **options: Any) -> Any:
        compared.append((len(text), len(known)))
        return extract(text, known, **options)

    monkeypatch.setattr(closest.process, "extract", counted)
    names = [f"entity {i}" for i in range(30_000)]
    known = ClosestTexts(names)
    known.prepare()
    assert names[known.closest("entty 23456", 1)[0]] == "entity 23456"
    for text in ("entity", "e", "y" * 100_000, "entity 1 " * 500, "\ud800", "no such thing", ""):
        known.closest(text, 9)
    assert max(n for n, _ in compared) <= closest.COMPARED
    assert max(n for _, n in compared) <= 2 * closest.CANDIDATES
