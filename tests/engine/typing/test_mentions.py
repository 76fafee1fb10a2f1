"""Reading mentions: three layouts, and errors that name the file, the line and the field."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import FormatError, MissingFileError
from engine.storage.store import Store
from engine.typing.fewshot import draw_examples
from engine.typing.files import find_data
from engine.typing.mentions import Mention, TypedMention, labels_of, read_mentions

UFET = {
    "annot_id": "a:1",
    "mention_span": "the crew",
    "left_context_token": ["At", "dawn"],
    "right_context_token": ["sailed", "."],
    "y_str": ["group", "team", "group"],
    "y_added": ["sailor", "team"],
}
FET = {
    "ex_id": 7,
    "word": "Oslo",
    "left_context": [],
    "right_context": ["is", "cold"],
    "y_category": ["/location", "/location/city"],
    "fileid": "left alone",
}
OWN = {"id": "x", "left": "We saw ", "mention": "Oslo", "right": ".", "types": []}


def write(folder: Path, *rows: Any) -> Store:
    file = folder / "m.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return Store.open(file)


def test_the_three_layouts_are_read(tmp_path: Path) -> None:
    assert read_mentions(write(tmp_path, UFET, "", FET, OWN)) == [
        TypedMention("a:1", Mention("At dawn", "the crew", "sailed ."), ("group", "team"), ("sailor",)),
        TypedMention("7", Mention("", "Oslo", "is cold"), ("/location", "/location/city")),
        TypedMention("x", Mention("We saw ", "Oslo", "."), ()),
    ]


def test_a_file_without_labels_is_read_where_none_are_needed(tmp_path: Path) -> None:
    file = write(tmp_path, {"left": "", "mention": "Oslo", "right": ""})
    (found,) = read_mentions(file, labelled=False)
    assert (found.id, found.labels) == ("1", ())
    with pytest.raises(FormatError, match=r"m\.jsonl, line 1: no field types, which lists"):
        read_mentions(file)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", r"line 2: not valid JSON"),
        ("[]", r"line 2: .*an object"),
        ({"sentence": "no mention"}, r"line 2: no mention in it: its field is one of mention_span, word"),
        ({**UFET, "word": "x"}, r"line 2: fields of several layouts \(mention_span, word\)"),
        ({**UFET, "mention_span": " "}, r"line 2: mention_span is empty"),
        ({**UFET, "mention_span": 3}, r"line 2: mention_span must be a text"),
        ({**UFET, "y_str": "person"}, r"line 2: y_str must be a list of texts"),
        ({**UFET, "left_context_token": [1]}, r"line 2: each of left_context_token must be a text"),
        ({**OWN, "left": ["a"]}, r"line 2: left must be a text"),
        ('{"mention": "a", "mention": "b"}', r"line 2: .*mention.* second time"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, row: Any, said: str) -> None:
    with pytest.raises(FormatError, match=said):
        read_mentions(write(tmp_path, UFET, row))


def test_a_file_that_is_not_there_or_empty_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.json: no such file of mentions"):
        read_mentions(Store.open(tmp_path / "none.json"))
    with pytest.raises(FormatError, match=r"m\.jsonl: no mention in it"):
        read_mentions(write(tmp_path, ""))


def test_labels_come_in_order_of_first_use(tmp_path: Path) -> None:
    found = read_mentions(write(tmp_path, FET, UFET))
    assert labels_of(found) == ["/location", "/location/city", "group", "team", "sailor"]


def test_the_files_of_a_data_set_are_found(tmp_path: Path) -> None:
    for name in ("u/crowd/train.json", "u/ontology/types.txt", "f/train.json", "f/type_vocab.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    for given, mentions, labels in (
        ("u", "u/crowd/train.json", "u/ontology/types.txt"),
        ("u/crowd/train.json", "u/crowd/train.json", "u/ontology/types.txt"),
        ("f", "f/train.json", "f/type_vocab.txt"),
        ("u/crowd", None, None),
    ):
        if mentions is None:
            assert find_data(str(tmp_path / given)).labels is None
            continue
        found = find_data(str(tmp_path / given))
        assert found.mentions.path.endswith(mentions)
        assert found.labels is not None
        assert found.labels.path.endswith(labels or "")
    with pytest.raises(MissingFileError, match=r"--data .*ontology: no train\.json"):
        find_data(str(tmp_path / "u" / "ontology"))
    with pytest.raises(MissingFileError, match=r"--train .*nothing\.json: no such file"):
        find_data(str(tmp_path / "nothing.json"), "--train")


def test_examples_are_drawn_by_finest_type() -> None:
    def of(place: int, *labels: str) -> TypedMention:
        return TypedMention(str(place), Mention("", "m", ""), labels)

    cities = [of(i, "/location", "/location/city") for i in range(6)]
    others = [of(i, "/location") for i in range(6, 9)]
    drawn = draw_examples([*cities, *others], 2, seed=1)
    assert sum(one in cities for one in drawn) == 2
    assert sum(one in others for one in drawn) == 2
    assert [int(one.id) for one in drawn] == sorted(int(one.id) for one in drawn)
    assert draw_examples([*cities, *others], 9, seed=1) == [*cities, *others]
    assert draw_examples([*cities, *others], 2, seed=1) == drawn
