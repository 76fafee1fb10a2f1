"""A search over a bundle and an overlay equals one over an index that holds the same vectors."""

from __future__ import annotations

import numpy as np
import pytest

from engine.overlay.state import AddedEntity, OverlayLayer, OverlayState
from engine.query import NewEntity
from engine.retrieval.index import Index, VectorIndex, unit
from engine.retrieval.overlaid_index import OverlaidIndex
from engine.retrieval.shards import IndexShard, ShardedIndex

N, ADDED, D = 120, 9, 8


def _vectors() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    vectors = unit(random.normal(size=(N + ADDED, D)))
    vectors[[7, N + 3]] = 0  # without a vector
    vectors[N + 5] = vectors[11]  # a tie between the bundle and the overlay
    return vectors, random.uniform(0, 0.3, N + ADDED).astype(np.float32)


def _state(vectors: np.ndarray, hubs: np.ndarray, version: int = 1) -> OverlayState:
    added = {
        i: AddedEntity(NewEntity(f"new {i}", ("x",), {"v": vectors[i]}, {"v": float(hubs[i])}))
        for i in range(N, N + ADDED)
    }
    return OverlayState(version, added)


def _parts(vectors: np.ndarray, hubs: np.ndarray) -> Index:
    shards = [
        IndexShard(i * 60, VectorIndex(vectors[i * 60 : i * 60 + 60], hubs[i * 60 : i * 60 + 60]))
        for i in (0, 1)
    ]

    class Here:
        def call(self, requests):
            return [getattr(shards[part], method)(*given) for part, method, given in requests]

    return ShardedIndex.connect(Here(), 2)


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("hubness", [0, 0.6])
@pytest.mark.parametrize("k", [1, 10, 500])
def test_a_search_equals_one_over_all_vectors(sharded: bool, hubness: float, k: int) -> None:
    vectors, hubs = _vectors()
    base = _parts(vectors[:N], hubs[:N]) if sharded else VectorIndex(vectors[:N], hubs[:N])
    overlaid = OverlaidIndex(base, "v", OverlayLayer(N, _state(vectors, hubs)))
    plain = VectorIndex(vectors, hubs)
    random = np.random.default_rng(6)
    means = random.normal(size=(5, D))
    means[0] = vectors[11]
    exclude = [[], [3, N + 1], [N + 2], [11], list(range(40))]
    among = [
        None,
        None,
        np.arange(0, N + ADDED, 2, dtype=np.int32),
        np.array([N + 4], np.int32),
        np.empty(0, np.int32),
    ]

    found = overlaid.search(means, k, exclude, among, hubness)

    for one, other in zip(found, plain.search(means, k, exclude, among, hubness), strict=True):
        for mine, theirs in zip(one, other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_vectors_and_similarities_equal_those_of_all_vectors() -> None:
    vectors, hubs = _vectors()
    overlaid = OverlaidIndex(VectorIndex(vectors[:N], hubs[:N]), "v", OverlayLayer(N, _state(vectors, hubs)))
    ids = np.array([N + 8, 3, N, 7, N + 3, 100], np.int32)
    asked = [(ids, np.random.default_rng(1).normal(size=(3, D))), (ids[:0], np.zeros((1, D)))]
    plain = VectorIndex(vectors, hubs)

    np.testing.assert_array_equal(overlaid.vectors_of(ids.tolist()), plain.vectors_of(ids.tolist()))
    for mine, theirs in zip(overlaid.similarities(asked), plain.similarities(asked), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_an_overlay_no_more_has_is_like_nothing() -> None:
    vectors, hubs = _vectors()
    layer = OverlayLayer(N, _state(vectors, hubs))
    overlaid = OverlaidIndex(VectorIndex(vectors[:N]), "v", layer)
    mean = vectors[N : N + 1].astype(np.float64)
    assert overlaid.search(mean, 1, [()])[0].ids.tolist() == [N]

    layer.state = OverlayState(2, {i: one for i, one in layer.state.added.items() if i != N})

    assert overlaid.search(mean, 1, [()])[0].ids.tolist() != [N]
    assert not overlaid.vectors_of([N]).any()
    (product,) = overlaid.similarities([(np.array([N], np.int32), mean)])
    assert product.tolist() == [[0.0]]
