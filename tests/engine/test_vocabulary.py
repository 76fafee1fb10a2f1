from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UnknownEntityError
from engine.vocabulary import Vocabulary
from tests.support.bundles import write_entities

WORDS = Vocabulary(
    ["Turkey", "turkey", "Georgia", "Ankara", "Köln", "1984", "ΑΘΗΝΑ", "Straße"],
    [[], [], ["Sakartvelo"], ["Angora", "Georgia"], ["Cologne"], [], [], []],
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Turkey", 0),
        ("turkey", 1),
        ("TURKEY", None),  # two entities share the folded spelling: nobody is guessed
        ("georgia", 2),  # a name wins over another entity's alias
        ("Sakartvelo", 2),
        ("  angora ", 3),
        ("cologne", 4),
        ("KÖLN", 4),
        ("1984", 5),
        ("αθηνα", 6),
        ("STRASSE", 7),
        ("", None),
        (5, 5),
        (0, 0),
        (8, None),
        (-1, None),
        (10**30, None),
        (True, None),
        ("x" * 1_000_000, None),
    ],
)
def test_find(given, found) -> None:
    assert WORDS.find(given) == found


LOOKS = Vocabulary(
    ["São Tomé", "O'Tool", "Saint-Lune", "Saint–Lune", "AT&T Quay", "کتاب‌خانه", "New\u00a0Bay"],
    [[], [], [], [], ["Soft Harbour"], [], []],
)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Sa\u0303o\u00a0Tome\u0301", 0),
        ("s\u00e3o  tom\u00e9\u200b", 0),
        ("O\u2019TOOL", 1),
        ("Saint–lune", 3),  # case alone: the nearer spelling
        ("Saint\u2011Lune", None),  # two look like it: nobody is guessed
        ("AT&amp;T Quay", 4),
        ("\ufeffＳoft Har\u00adbour", 4),
        ("کتابخانه", 5),
        ("New Bay", 6),  # stored by an earlier version
        ("\u200b", None),
        ("Sao Tome", None),
    ],
)
def test_look_alike_signs_are_understood(given, found) -> None:
    assert LOOKS.find(given) == found


def test_prefixes_with_look_alike_signs() -> None:
    assert LOOKS.starting_with("o\u2019t") == ["O'Tool"]
    assert LOOKS.starting_with("Sa\u0303o\u00a0") == ["São Tomé"]
    assert LOOKS.starting_with("new ba") == LOOKS.starting_with("NEW\u2009") == ["New\u00a0Bay"]
    assert LOOKS.starting_with("so ") == []


def test_did_you_mean_names_the_sign() -> None:
    with pytest.raises(UnknownEntityError, match=r"'Saint-Lune' \(given: U\+2011 at 5 in place of U\+002D\)"):
        LOOKS.resolve("Saint\u2011Lune")
    with pytest.raises(UnknownEntityError, match=r"'O'Tool\" \(given|\"O'Tool\" \(given: U\+041E at 0"):
        LOOKS.resolve("\u041e'Tool")
    with pytest.raises(UnknownEntityError, match="a name without a visible sign is empty"):
        LOOKS.resolve("\u200b")


def test_an_unknown_name_is_an_error_that_names_the_closest() -> None:
    with pytest.raises(UnknownEntityError, match=r"q: unknown entity 'Ankora'; .*'Ankara'") as caught:
        WORDS.resolve("Ankora", "q")
    assert caught.value.closest[0] == "Ankara"


def test_closest_is_by_spelling_aliases_included_without_repetition() -> None:
    assert WORDS.closest("Colonge", 1) == ["Köln"]
    assert WORDS.closest("TURKEY", 2) == ["Turkey", "turkey"]
    assert len(set(WORDS.closest("Georgia", 5))) == len(WORDS.closest("Georgia", 5))
    assert WORDS.closest("") == []
    assert isinstance(WORDS.closest("y" * 1_000_000), list)


def test_prefix() -> None:
    assert WORDS.starting_with("an") == ["Ankara"]  # by name and by alias, once
    assert WORDS.starting_with("tUR") == ["Turkey", "turkey"]
    assert WORDS.starting_with("tur", n=1) == ["Turkey"]
    assert WORDS.starting_with("zzz") == []
    assert len(WORDS.starting_with("", n=100)) == len(WORDS)


def test_resolve_all_keeps_order() -> None:
    assert WORDS.resolve_all(["1984", 0, "cologne"]) == (5, 0, 4)


def test_read(tmp_path: Path) -> None:
    write_entities(tmp_path / "entities.parquet", ["a", "b"], {"b": ["B."]})
    read = Vocabulary.read(tmp_path / "entities.parquet")
    assert (read.names, read.aliases) == (["a", "b"], [[], ["B."]])


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, min_size=1, max_size=20), st.data())
def test_every_name_finds_itself(names, data: Any) -> None:
    words = Vocabulary(names)
    place = data.draw(st.integers(0, len(names) - 1))
    assert words.find(names[place]) == place
    found = words.find(data.draw(st.text(max_size=8)))
    assert found is None or 0 <= found < len(names)
    assert set(words.starting_with(data.draw(st.text(max_size=3)), 5)) <= set(names)
