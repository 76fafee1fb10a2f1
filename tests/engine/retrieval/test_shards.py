"""A sharded index against the whole one: the same ids and the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.retrieval.index import VectorIndex, mean_of, unit
from engine.retrieval.shards import IndexShard, ShardedIndex
from tests.support.shards import Here


def cut(whole: VectorIndex, hubness: np.ndarray, cuts: Sequence[int]) -> tuple[ShardedIndex, Here]:
    bounds = [0, *sorted(cuts), len(whole)]
    parts = [
        IndexShard(lo, VectorIndex(whole.vectors_ND[lo:hi].copy(), hubness[lo:hi]))
        for lo, hi in pairwise(bounds)
    ]
    here = Here(parts)
    return ShardedIndex.connect(here, len(parts)), here


@given(st.data(), st.integers(1, 50), st.integers(1, 60), st.sampled_from([0.0, 0.6]))
def test_any_cut_gives_the_rankings_and_the_scores_of_the_whole(data: Any, n: int, k: int, weight) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    vectors = unit(random.normal(size=(n, 33)))
    vectors[random.random(n) < 0.2] = 0
    vectors[random.integers(0, n, n // 3)] = vectors[0]  # ties
    hubness = random.random(n).astype(np.float32)
    whole = VectorIndex(vectors, hubness)
    sharded, here = cut(whole, hubness, data.draw(st.lists(st.integers(0, n), max_size=5)))
    ids = st.lists(st.integers(0, n - 1), max_size=6)
    queries = data.draw(st.integers(1, 4))
    seeds = [data.draw(ids) for _ in range(queries)]
    exclude = [data.draw(ids) for _ in range(queries)]
    few = st.one_of(st.none(), st.sets(st.integers(0, n - 1)))
    chosen = [data.draw(few) for _ in range(queries)]
    among = [None if c is None else np.array(sorted(c), np.int32) for c in chosen]
    means = np.stack([mean_of(whole.vectors_of(own)) for own in seeds])
    here.calls = 0
    for own in seeds:
        np.testing.assert_array_equal(sharded.vectors_of(own), whole.vectors_of(own))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.retrieval.index.FEW", 3)  # small sets are scored one by one
        expected = whole.search(means, k, exclude, among, weight)
        found = sharded.search(means, k, exclude, among, weight)
    for one, other in zip(found, expected, strict=True):
        for column, same in zip(one, other, strict=True):
            np.testing.assert_array_equal(column, same)
            assert column.dtype == same.dtype
    asked = [(one.ids, random.normal(size=(2, 33))) for one in expected]
    for products, same in zip(sharded.similarities(asked), whole.similarities(asked), strict=True):
        np.testing.assert_array_equal(products, same)
    assert here.calls == queries + 2, "one call, however many queries there are"


def test_parts_cover_a_file_and_hold_no_more_than_their_rows(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    vectors, hubness = unit(random.normal(size=(10, 8))), random.random(10).astype(np.float32)
    VectorIndex(vectors).write(tmp_path / "a.faiss")
    np.save(tmp_path / "a.hubness.npy", hubness)
    parts = [IndexShard.read(tmp_path / "a.faiss", part, 3) for part in range(3)]
    assert [part.rows() for part in parts] == [(0, 3, 8, None), (3, 6, 8, None), (6, 10, 8, None)]
    for part in parts:
        held = part.index.vectors_ND
        assert held.flags.owndata, "not a window on the whole"
        assert held.nbytes == (part.rows().end - part.rows().first) * 8 * 4
    whole = VectorIndex.read(tmp_path / "a.faiss")
    means = np.stack([mean_of(vectors[:3])])
    (found,) = ShardedIndex.connect(Here(parts), 3).search(means, 10, [[4]], hubness=0.6)
    (expected,) = whole.search(means, 10, [[4]], hubness=0.6)
    for column, same in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, same)


@pytest.mark.parametrize("parts", [1, 4])
def test_more_parts_than_entities_leave_some_empty(tmp_path: Path, parts: int) -> None:
    VectorIndex(unit(np.eye(2))).write(tmp_path / "a.faiss")
    read = [IndexShard.read(tmp_path / "a.faiss", part, parts) for part in range(parts)]
    sharded = ShardedIndex.connect(Here(read), parts)
    (found,) = sharded.search(np.array([[0.0, 1.0]]), 5, [[]])
    assert found.ids.tolist() == [1, 0]
    assert sharded.vectors_of([]).shape == (0, 2)
    assert sharded.similarities([]) == []
