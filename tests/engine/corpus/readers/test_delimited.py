"""Tables of fields and lines of text: what is a row, what is refused, and where it stood."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.corpus.readers import delimited
from engine.corpus.readers.delimited import CSV, TSV, header_of, read_csv, read_lines, read_tsv
from engine.corpus.readers.rows import BrokenFileError, Read, Wanted
from engine.errors import FormatError
from engine.refusals import Code, Refusal
from engine.storage.store import Store


def store(folder: Path, content: str | bytes, name: str = "t") -> Store:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return Store.open(file)


def rows(read: Read, file: Store, *columns: str) -> list[tuple[object, str]]:
    return [(values, str(position)) for values, position, _ in read(file, Wanted(columns))]


FIELD = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00\ufeff"), max_size=12)


@given(st.lists(st.tuples(FIELD, FIELD), max_size=6))
def test_what_a_spreadsheet_writes_is_read(records: list[tuple[str, str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([("a", "b"), *records])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "open_text", lambda file: io.BytesIO(text.getvalue().encode()))
        found = [values for values, *_ in read_csv(Store.open("t"), Wanted(("a", "b")))]
    assert found == [{"a": a or None, "b": b or None} for a, b in records]


def test_places_are_the_lines_on_which_records_begin(tmp_path: Path) -> None:
    file = store(tmp_path, '\ufeffa,b\r\n1,"two\r\nlines"\r\n\r\n3\r\n4,5,6\r\n7,8\r\n')
    assert header_of(file, CSV) == ["a", "b"]
    found = rows(read_csv, file, "a", "b")
    assert found[0] == ({"a": "1", "b": "two\r\nlines"}, "line 2")
    assert [place for _, place in found] == ["line 2", "line 5", "line 6", "line 7"]
    assert found[1][0] == Refusal(Code.WRONG_LAYOUT, "has 1 fields, and the header 2")
    assert found[3][0] == {"a": "7", "b": "8"}


def test_quotation_marks_part_no_fields_of_tsv(tmp_path: Path) -> None:
    file = store(tmp_path, 'a\tb\n"Hello," he said\tx\n"\ty\n')
    assert header_of(file, TSV) == ["a", "b"]
    assert [values for values, _ in rows(read_tsv, file, "a")] == [{"a": '"Hello," he said'}, {"a": '"'}]


def test_an_open_quotation_mark_does_not_take_the_rest_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delimited, "MAX_FIELD", 100)
    file = store(tmp_path, 'a\nfine\n"open' + "x\n" * 100)
    reading = read_csv(file, Wanted(("a",)))
    assert next(reading)[0] == {"a": "fine"}
    with pytest.raises(BrokenFileError, match="is a quotation mark left open") as broken:
        next(reading)
    assert str(broken.value.position).startswith("line ")


def test_a_cut_compressed_file_is_broken_at_its_place(tmp_path: Path) -> None:
    packed = gzip.compress(b"a\n" + b"".join(f"{i} {i * i}\n".encode() for i in range(5000)))
    file = store(tmp_path, packed[: len(packed) // 2], "t.csv.gz")
    with pytest.raises(BrokenFileError) as broken:
        list(read_csv(file, Wanted(("a",))))
    assert broken.value.refusal.code is Code.FILE_CUT_OFF


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no column text \(found: a, b\)"):
        list(read_csv(store(tmp_path, "a,b\n1,2\n"), Wanted(("text",))))
    with pytest.raises(FormatError, match=r"no column text \(found: nothing\)"):
        list(read_csv(store(tmp_path, ""), Wanted(("text",))))


def test_the_lines_of_a_text_file_are_the_column_that_is_asked_for(tmp_path: Path) -> None:
    assert rows(read_lines, store(tmp_path, "x\n"), "name", "other") == [({"name": "x"}, "line 1, byte 0")]


def test_a_value_of_a_folder_stands_in_for_a_column(tmp_path: Path) -> None:
    file = store(tmp_path, "a\n1\n")
    assert [values for values, *_ in read_csv(file, Wanted(("lang", "a"), {"lang": "en"}))] == [
        {"lang": "en", "a": "1"}
    ]


def test_a_line_is_a_text(tmp_path: Path) -> None:
    file = store(tmp_path, b"\xef\xbb\xbfone\r\n\r\ntw\xffo\nthree")
    found = rows(read_lines, file, "text")
    assert found[0] == ({"text": "one"}, "line 1, byte 0")
    assert isinstance(found[1][0], Refusal)
    assert found[1][0].code is Code.NOT_UTF8
    assert found[2][0] == {"text": "three"}
