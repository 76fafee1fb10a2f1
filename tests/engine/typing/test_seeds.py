"""Seeds of types are read by name; every mistake names its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.query import MAX_SEEDS
from engine.storage.store import Store
from engine.typing.seeds import read_seeds
from engine.vocabulary import Vocabulary

NAMES = ["Oslo", "Rome", "Ann", "Bo", *(f"e{i}" for i in range(MAX_SEEDS))]
VOCABULARY = Vocabulary(NAMES, [["Kristiania"], *[[] for _ in NAMES[1:]]])


def read(folder: Path, content: object) -> dict[str, tuple[int, ...]]:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / "seeds.json").write_text(text, encoding="utf-8")
    return read_seeds(Store.open(folder / "seeds.json"), VOCABULARY)


def test_names_and_aliases_are_ids_in_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, {"person": ["Bo", "Ann"], "city": ["kristiania"]})
    assert list(found.items()) == [("person", (3, 2)), ("city", (0,))]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", r"seeds\.json: not valid JSON"),
        ('{"a": ["Oslo"], "a": ["Rome"]}', r"seeds\.json: not valid JSON \(a is given a second time"),
        (["Oslo"], r"must be an object with a list of names for each type, such as .*, not a list"),
        ({"city": "Oslo"}, r"type 'city': must be a list of entity names, not a text"),
        ({"city": ["Oslo", 3]}, r"type 'city', seed 2: must be a name, not a number"),
        ({"city": []}, r"type 'city': no seed; name at least one entity, or leave the type out"),
        ({"city": ["Olso"]}, r"type 'city': unknown entity 'Olso'.*Oslo"),
        ({"city": ["Oslo", "Oslo"]}, r"type 'city': 'Oslo' is named twice; name each entity once"),
        ({"city": ["Oslo", "Kristiania"]}, r"type 'city': 'Kristiania' is named twice \(as 'Oslo'\)"),
        ({"city": ["Oslo"], "town": ["Rome", "Oslo"]}, r"type 'town': 'Oslo' is named under 'city', too"),
        ({"city": ["Oslo"]}, r"1 types; give two or more"),
        ({}, r"0 types; give two or more"),
        ({"a": NAMES[: MAX_SEEDS + 1], "b": ["Bo"]}, rf"type 'a': {MAX_SEEDS + 1} seeds; .* at most 100"),
        ({"big_city": ["Oslo"], "Big city": ["Rome"]}, r"'big_city' and 'Big city' are both 'big city'"),
        ({" ": ["Oslo"], "b": ["Rome"]}, r"seeds\.json: labels: ' ' has no words"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: no such file of seeds"):
        read_seeds(Store.open(tmp_path / "none.json"), VOCABULARY)
