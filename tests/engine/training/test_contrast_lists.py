"""Mined lists on disk: what is written is read, and every mistake is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from engine.errors import FormatError
from engine.training.contrast_lists import SCHEMA, ContrastLists, lists_key, read_lists, write_lists


def some(query_id: str = "q", most: int = 9) -> ContrastLists:
    lists: tuple[list[int], ...] = ([0, 3], [], [0, 3, 5], [2], [0, 3, 5, 2, most])
    return ContrastLists(query_id, *(np.array(one, np.int32) for one in lists))


def test_lists_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_lists(tmp_path / "lists.parquet", [some("a"), some("b", 4)])
    found = read_lists(tmp_path / "lists.parquet", 10)
    assert [one.query_id for one in found] == ["a", "b"]
    for one, wanted in zip(found, (some("a"), some("b", 4)), strict=True):
        for name in SCHEMA.names[1:]:
            assert getattr(one, name).dtype == np.int32
            assert getattr(one, name).tolist() == getattr(wanted, name).tolist()


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    file = tmp_path / "lists.parquet"
    with pytest.raises(FormatError, match="two rows are of query 'a'"):
        write_lists(file, [some("a"), some("a")])
    with pytest.raises(FormatError, match=r"no file of contrast lists.*mine-contrast"):
        read_lists(file)
    file.write_bytes(b"PAR1")
    with pytest.raises(FormatError, match="no file of contrast lists"):
        read_lists(file)
    pq.write_table(pa.table({"query_id": ["a"]}), file)
    with pytest.raises(FormatError, match="no file of contrast lists"):
        read_lists(file)
    write_lists(file, [some("a"), some("b")])
    with pytest.raises(FormatError, match=r"query 'a': recalled names entity 9, and there are 9"):
        read_lists(file, 9)


def test_another_corpus_or_another_setting_is_another_key() -> None:
    keys = {lists_key("x", {"a": 1, "b": 2}), lists_key("y", {"a": 1, "b": 2}), lists_key("x", {"a": 2})}
    assert len(keys) == 3
    assert lists_key("x", {"b": 2, "a": 1}) in keys
