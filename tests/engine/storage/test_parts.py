from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from engine.errors import StorageError
from engine.storage.parts import (
    PartFolder,
    content_key,
    numbered,
    read_model,
    read_pointer,
    write_model,
    write_pointer,
)
from engine.storage.store import Store


def number(file: Store) -> int:
    return int(file.read_bytes())


@pytest.fixture(params=["local", "bucket"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> PartFolder[int]:
    """Parts of two files, the second with a number in it."""
    root = request.getfixturevalue("s3") if request.param == "bucket" else str(tmp_path)
    return PartFolder(Store.open(f"{root}/parts"), (".npy", ".txt"), number)


def write(parts: PartFolder[int], name: str, content: str) -> None:
    for suffix in parts.suffixes:
        with parts.writing(name, suffix) as path:
            path.write_text(content)


def test_a_part_is_there_once_its_last_file_is(parts: PartFolder[int]) -> None:
    assert parts.names() == []
    with parts.writing("b", ".npy") as path:
        path.write_text("1")
    assert parts.names() == []
    write(parts, "a", "3")
    with parts.writing("b", ".txt") as path:
        path.write_text("2")
    assert parts.names() == ["a", "b"]
    assert parts.finished() == {"a": 3, "b": 2}
    assert list(parts.finished(["b", "c", "a"]).items()) == [("b", 2), ("a", 3)]
    parts.file("a", ".npy").delete()
    assert parts.names() == ["b"]


def test_a_broken_part_counts_as_missing(parts: PartFolder[int]) -> None:
    write(parts, "a", "half a numb")
    write(parts, "b", "5")
    assert parts.names() == ["a", "b"]
    assert parts.finished(["a", "b"]) == {"b": 5}


def test_what_fails_while_it_is_written_leaves_nothing(parts: PartFolder[int]) -> None:
    def half_written() -> None:
        with parts.writing("a") as path:
            path.write_text("1")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half_written()
    assert parts.folder.files() == []


def test_a_folder_that_lacks_parts_names_them_and_the_way_out(parts: PartFolder[int]) -> None:
    write(parts, "b", "1")
    parts.check_complete(["b"], "run it again")
    with pytest.raises(StorageError, match=r"2 of 3 parts are missing \(part-a.txt, part-c.txt\); run"):
        parts.check_complete(["a", "b", "c"], "run it again")


class Counted(BaseModel):
    rows: int


def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    file = Store.open(tmp_path) / "manifest.json"
    write_model(file, Counted(rows=2))
    assert read_model(file, Counted, "make it again") == Counted(rows=2)
    file.write_bytes(b'{"rows": "many"}')
    with pytest.raises(StorageError, match=r"manifest.json: cannot be read \(.*integer.*\); make it again"):
        read_model(file, Counted, "make it again")


def test_a_pointer_names_what_was_made_last(tmp_path: Path) -> None:
    folder = Store.open(tmp_path)
    assert read_pointer(folder) is None
    write_pointer(folder, "first")
    write_pointer(folder, "second")
    assert read_pointer(folder) == "second"


pieces = st.lists(st.one_of(st.text(max_size=4), st.binary(max_size=4)), max_size=4)


@given(pieces, pieces)
def test_a_key_is_the_same_for_the_same_pieces_and_no_others(
    one: list[str | bytes], other: list[str | bytes]
) -> None:
    plain = [[p.encode() if isinstance(p, str) else p for p in some] for some in (one, other)]
    assert (content_key(*one) == content_key(*other)) == (plain[0] == plain[1])
    assert len(content_key(*one)) == 16


def test_numbers_sort_as_texts() -> None:
    assert [numbered(n) for n in (0, 9, 10, 12345)] == ["00000", "00009", "00010", "12345"]
