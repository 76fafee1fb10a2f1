"""Plurals by their spelling."""

from __future__ import annotations

import pytest

from engine.text.plurals import is_plural, plural


@pytest.mark.parametrize(
    ("one", "many"),
    [
        ("country", "countries"),
        ("day", "days"),
        ("church", "churches"),
        ("box", "boxes"),
        ("person", "people"),
        ("species", "species"),
        ("metal", "metals"),
    ],
)
def test_plurals_are_made_and_told(one: str, many: str) -> None:
    assert plural(one) == many
    assert is_plural(many)
    assert is_plural(one) == (one == many)


@pytest.mark.parametrize("word", ["famous", "class", "analysis", "is", "as", "red"])
def test_what_is_no_plural(word: str) -> None:
    assert not is_plural(word)
