"""Vectors that processes share are those that are read, and lie where products take them in place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.retrieval import shared_vectors
from engine.retrieval.index import VectorIndex, read_vectors, unit
from engine.storage.store import machine_cache


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(shared_vectors, "SHARED_BYTES", 1)
    vectors = np.random.default_rng(0).normal(size=(300, 7))
    vectors[5] = 0
    VectorIndex(unit(vectors)).write(tmp_path / "x.faiss")
    return tmp_path / "x.faiss"


def copies() -> list[Path]:
    return sorted((machine_cache() / "vectors").glob("*"))


def test_they_are_equal_aligned_and_answer_alike(index: Path) -> None:
    shared, own = VectorIndex.read(index), VectorIndex(read_vectors(index))
    np.testing.assert_array_equal(shared.vectors_ND, own.vectors_ND)
    assert shared.vectors_ND.ctypes.data % 64 == 0
    assert not read_vectors(index, mapped=True).flags.aligned, "the reason for the copy"
    means = own.vectors_ND[:9].astype(np.float64)
    for one, other in zip(*(i.search(means, 20, [[]] * 9) for i in (shared, own)), strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.scores, other.scores)
    (copy,) = copies()
    with open("/proc/self/maps") as maps:
        assert str(copy) in maps.read(), "mapped, not read"


def test_a_copy_is_made_once_and_again_where_it_is_broken(index: Path) -> None:
    VectorIndex.read(index)
    (copy,) = copies()
    made = copy.stat().st_ino
    VectorIndex.read(index)
    assert copy.stat().st_ino == made
    copy.write_bytes(b"broken")
    np.testing.assert_array_equal(VectorIndex.read(index).vectors_ND, read_vectors(index))
    assert copies() == [copy]


def test_without_a_cache_each_reads_its_own(
    index: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(index / "below a file"))
    np.testing.assert_array_equal(VectorIndex.read(index).vectors_ND, read_vectors(index))
    assert "vectors cannot be shared" in caplog.text


def test_small_indexes_leave_no_copy(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_vectors, "SHARED_BYTES", 1 << 20)
    VectorIndex.read(index)
    assert copies() == []
