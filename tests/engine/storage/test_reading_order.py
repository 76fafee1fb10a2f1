"""The system is told how a mapped array is read, and what is read is the same."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from engine.retrieval.code_building import make_codes, write_codes
from engine.retrieval.codes import SQ8
from engine.retrieval.index import VectorIndex, read_vectors, unit, write_vectors
from engine.retrieval.shards import IndexShard
from engine.storage.reading_order import in_order, map_array, read_singly

ROWS = np.random.default_rng(3).standard_normal((200, 8), np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "rows"
    path.write_bytes(b"a beginning of 23 bytes" + ROWS.tobytes())
    return path


def advice(path: Path) -> set[str]:
    """Return what the system was told of the only map of a file: "sr", in order; "rr", singly."""
    (flags,) = re.findall(
        rf"{re.escape(str(path))}\n(?:\w+:.*\n)*?VmFlags: (.*)\n", Path("/proc/self/smaps").read_text()
    )
    return {"sr", "rr"} & set(flags.split())


def test_what_is_mapped_is_what_the_file_ends_in(path: Path) -> None:
    found = map_array(path, np.float32, ROWS.shape)
    np.testing.assert_array_equal(found, ROWS)
    assert not found.flags.writeable
    assert advice(path) == set()


def test_an_array_without_a_row(path: Path) -> None:
    assert map_array(path, np.float32, (0, 8)).shape == (0, 8)


def test_the_system_is_told_while_the_block_runs(path: Path) -> None:
    found = map_array(path, np.float32, ROWS.shape)
    with in_order(found[10:20].T):
        assert advice(path) == {"sr"}
    assert advice(path) == set()
    read_singly(found[3:])
    assert advice(path) == {"rr"}
    with pytest.raises(KeyError), in_order(found):
        raise KeyError
    assert advice(path) == {"rr"}


def test_of_other_arrays_nothing_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", ROWS)
    mapped = np.asarray(np.load(tmp_path / "rows.npy", mmap_mode="r"))
    for array in (ROWS, mapped):
        read_singly(array)
        with in_order(array):
            np.testing.assert_array_equal(array, ROWS)
    assert advice(tmp_path / "rows.npy") == set()


def test_rows_are_read_singly_beside_codes_and_in_order_by_an_exact_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, vectors = tmp_path / "view.faiss", unit(ROWS)
    write_vectors(path, [vectors], vectors.shape)
    write_codes(make_codes(vectors, None, SQ8), path.with_suffix(".codes"))
    shard = IndexShard.read(path, 0, 1)
    assert advice(path) == {"rr"}
    told = []

    def products(*given: np.ndarray) -> np.ndarray:
        told.append(advice(path))
        return given[0] @ given[1].T

    monkeypatch.setattr("engine.retrieval.fast_products._products", products)
    mean = vectors[:1].astype(np.float64)
    (found,) = shard.search(mean, 5, [np.empty(0, np.int32)], [None], 0)
    (wanted,) = VectorIndex(vectors).search(mean, 5, [[]])
    assert told[0] == {"sr"}
    assert advice(path) == {"rr"}
    assert found.ids.tolist() == wanted.ids.tolist()


def test_a_view_is_not_mapped_by_faiss_which_never_reads_ahead(tmp_path: Path) -> None:
    path = tmp_path / "view.faiss"
    write_vectors(path, [ROWS], ROWS.shape)
    mapped = read_vectors(path, mapped=True)
    assert advice(path) == set()
    np.testing.assert_array_equal(mapped, ROWS)
