"""Reads the fact tables and offers the few word helpers that sentences need."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from engine.repeated_keys import json_value

HERE = Path(__file__).resolve().parent
Row = dict[str, str]
Table = dict[str, Row]

# Vowel letters that sound like a consonant, and the silent h, so that "a"/"an" come out right.
_A_ANYWAY = re.compile(r"^(?:u(?:k|ni|s[ae]|r[ao])|eu|one)", re.IGNORECASE)
_AN_ANYWAY = re.compile(r"^(?:hour|honest|heir)", re.IGNORECASE)


@cache
def load_classes() -> dict[str, dict[str, object]]:
    """The classes, their query attributes and the words that give an attribute away."""
    text = (HERE / "classes.json").read_text(encoding="utf-8")
    classes: dict[str, dict[str, object]] = json_value(text)
    return classes


def attribute_names(cls: str) -> list[str]:
    """The columns of a class that queries may ask for."""
    names = load_classes()[cls]["attributes"]
    assert isinstance(names, list)
    return [str(name) for name in names]


@cache
def load_table(cls: str) -> Table:
    """All rows of one class by entity name, in the order of the file."""
    with (HERE / "facts" / f"{cls}.csv").open(encoding="utf-8", newline="") as handle:
        rows = [{key: value.strip() for key, value in row.items()} for row in csv.DictReader(handle)]
    table = {row["name"]: row for row in rows}
    if len(table) != len(rows):
        raise ValueError(f"{cls}.csv names an entity twice")
    return table


def values(row: Row, column: str) -> list[str]:
    """The values of a cell: several are parted by semicolons, an empty cell has none."""
    return [part.strip() for part in row.get(column, "").split(";") if part.strip()]


def attributes_of(cls: str, row: Row) -> dict[str, list[str]]:
    """The attributes of an entity; a fact that is not known is left out, not guessed."""
    found = {"class": [cls]}
    for attr in attribute_names(cls):
        if values(row, attr):
            found[attr] = values(row, attr)
    return found


def with_article(noun: str) -> str:
    """The noun with "a" or "an", chosen by sound rather than by letter."""
    vowel = noun[0].lower() in "aeiou"
    an = _AN_ANYWAY.match(noun) is not None or (vowel and _A_ANYWAY.match(noun) is None)
    return f"{'an' if an else 'a'} {noun}"


def join_words(words: Sequence[str]) -> str:
    """An English list: "A", "A and B", "A, B and C"."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st ..."""
    if number % 100 in (11, 12, 13):
        return f"{number}th"
    return f"{number}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th') }"


def named(table: Mapping[str, Row], name: str) -> str:
    """A name as it stands in running text, with its article where it takes one."""
    article = table[name].get("article", "") if name in table else ""
    return f"{article} {name}" if article else name
