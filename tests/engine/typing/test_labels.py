"""Labels as words: what is made of them, and clashes that are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.errors import FormatError, MissingFileError, UserError
from engine.storage.store import Store
from engine.typing.labels import (
    ancestors,
    finest,
    label_words,
    read_label_words,
    read_labels,
    with_ancestors,
)


def test_words_of_labels() -> None:
    labels = ["/organization/sports_team", "body_part", "/GPE/CITY", "person"]
    assert label_words(labels) == ["sports team", "body part", "CITY", "person"]


def test_alike_paths_get_their_parents_behind_them() -> None:
    labels = ["/person/legal", "/other/legal", "/legal_matter", "/a/b/other", "/c/b/other", "/other"]
    assert label_words(labels) == [
        *("legal person", "legal other", "legal matter"),
        *("other b a", "other b c", "other"),
    ]


def test_own_words_are_taken_and_their_clashes_refused() -> None:
    assert label_words(["/person/legal", "/other/legal"], {"/person/legal": "lawyer"}) == ["lawyer", "legal"]
    with pytest.raises(UserError, match=r"'/a' and '/b' are both 'Town' in words.*--label-words"):
        label_words(["/a", "/b"], {"/a": "Town", "/b": "town"})
    with pytest.raises(UserError, match="'body part' and 'body_part' are both 'body part'"):
        label_words(["body part", "body_part"])
    with pytest.raises(UserError, match="words are given for '/c', which is not among the types"):
        label_words(["/a"], {"/c": "town"})
    with pytest.raises(UserError, match="'/a' is listed twice"):
        label_words(["/a", "/a"])
    with pytest.raises(UserError, match="'_' has no words"):
        label_words(["_"])


def test_paths_have_parents() -> None:
    assert ancestors("/person/artist/author") == ["/person", "/person/artist"]
    assert ancestors("person") == []
    assert with_ancestors(["/a/b", "c", "/a"]) == ["/a", "/a/b", "c"]
    assert finest(["/a", "/a/b", "c", "/d"]) == ["/a/b", "c", "/d"]


def test_files_of_labels(tmp_path: Path) -> None:
    types, words = tmp_path / "types.txt", tmp_path / "words.json"
    types.write_text("person\n\n body_part \nperson\n")
    words.write_text('{"person": "human"}')
    assert read_labels(Store.open(types)) == ["person", "body_part"]
    assert read_label_words(Store.open(words)) == {"person": "human"}
    words.write_text('{"person": 3}')
    with pytest.raises(FormatError, match=r"words\.json: must be an object of texts"):
        read_label_words(Store.open(words))
    words.write_text('{"person": "a", "person": "b"}')
    with pytest.raises(FormatError, match=r"words\.json: not valid JSON"):
        read_label_words(Store.open(words))
    types.write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"types\.txt: not valid UTF-8 at byte 0"):
        read_labels(Store.open(types))
    types.write_text("\n")
    with pytest.raises(FormatError, match=r"types\.txt: no label in it"):
        read_labels(Store.open(types))
    with pytest.raises(MissingFileError, match=r"none\.txt: no such file"):
        read_labels(Store.open(tmp_path / "none.txt"))
