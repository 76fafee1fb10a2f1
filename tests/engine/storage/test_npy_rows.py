"""Rows of an npy file in a bucket: what is read is what was asked for, and little else."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import StorageError
from engine.storage import npy_rows, s3
from engine.storage.npy_rows import NpyRows, Span, read_spans
from engine.storage.object_copies import copied
from engine.storage.store import Store, machine_cache

ROW = 6 * 4
"""Bytes of a row of the array below."""


@pytest.fixture
def array() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(50, 2, 3)).astype(np.float32)


@pytest.fixture
def file(s3: str, array: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    np.save(tmp_path / "a.npy", array)
    store = Store.open(f"{s3}/a.npy")
    store.write_bytes((tmp_path / "a.npy").read_bytes())
    return store


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of every request."""
    found: list[int] = []
    plain = s3.read_range

    def read_range(path: str, begin: int, end: int) -> bytes | None:
        content = plain(path, begin, end)
        found.append(len(content or b""))
        return content

    monkeypatch.setattr(s3, "read_range", read_range)
    return found


def test_spans_of_a_bucket_are_read_and_nothing_else(
    file: Store, array: np.ndarray, requested: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy_rows, "GAP", ROW)
    rows = NpyRows(file)
    assert (rows.shape, rows.dtype) == (array.shape, array.dtype)
    requested.clear()
    ranges = [(40, 44), (3, 5), (6, 7), (4, 6), (20, 20)]
    found = read_spans([Span(rows, *one) for one in ranges])
    for one, (start, stop) in zip(found, ranges, strict=True):
        np.testing.assert_array_equal(one, array[start:stop])
    assert sorted(requested) == [0, 4 * ROW, 4 * ROW], "rows 3 to 6 together, 40 to 43, and none"


def test_a_copy_that_is_there_is_mapped_in_place_of_requests(
    file: Store, array: np.ndarray, requested: list[int]
) -> None:
    file.local_copy(machine_cache())
    (found,) = read_spans([Span(NpyRows(file), 3, 9)])
    np.testing.assert_array_equal(found, array[3:9])
    assert not requested


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 49), st.integers(0, 9)), max_size=12), st.integers(0, 300))
def test_any_spans_are_those_of_the_array(spans: list[tuple[int, int]], gap: int) -> None:
    array = np.arange(100, dtype=np.int16).reshape(50, 2)

    class InMemory(NpyRows):
        shape, dtype, mapped = array.shape, array.dtype, None

        def read(self, start: int, stop: int) -> np.ndarray:
            return array[start:stop]

    rows = InMemory(Store.open("/nowhere"))
    ranges = [(start, min(start + size, 50)) for start, size in spans]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(npy_rows, "GAP", gap)
        found = read_spans([Span(rows, *one) for one in ranges])
    for one, (start, stop) in zip(found, ranges, strict=True):
        np.testing.assert_array_equal(one.reshape(-1, 2), array[start:stop])


def test_a_range_of_a_local_file_and_of_one_in_a_bucket_are_the_same(file: Store, tmp_path: Path) -> None:
    local = Store.open(tmp_path / "a.npy")
    size = local.size()
    for begin, end in ((0, 7), (5, 5), (size - 3, size + 9), (size + 1, size + 4)):
        assert file.read_range(begin, end) == local.read_range(begin, end) == local.read_bytes()[begin:end]


def test_what_is_no_npy_file_or_ends_early_is_named(file: Store, array: np.ndarray) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-1])
    with pytest.raises(StorageError, match=r"a\.npy: ends before row 50"):
        NpyRows(file).read(48, 50)
    file.write_bytes(b"PAR1 is something else")
    with pytest.raises(StorageError, match=r"a\.npy: no npy file"):
        NpyRows(file).read(0, 1)
    file.delete()
    with pytest.raises(StorageError, match=r"a\.npy: no such file"):
        NpyRows(file).read(0, 1)


def test_of_those_that_want_a_copy_at_once_one_makes_it(
    file: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    plain, all_wait = s3.download, threading.Barrier(4)

    def download(*given: object) -> None:
        made.append(str(given[0]))
        plain(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(s3, "download", download)
    state = s3.version(file.path)
    assert state is not None

    def copy() -> None:
        all_wait.wait()
        assert copied(file.path, state, tmp_path / "cache") == tmp_path / "cache" / file.path

    threads = [threading.Thread(target=copy) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [file.path]
