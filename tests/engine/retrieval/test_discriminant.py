"""The map that seeds of queries make of a view: against plain loops, and what it leaves alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from engine.retrieval.discriminant import DIRECTIONS, GAIN, SHRINKAGE, Sides, discriminant_view
from engine.retrieval.index import Vectors, unit

N, D = 60, 12


def sides(positive: list[int], negative: list[int]) -> Sides:
    return Sides(np.array(positive, np.int32), np.array(negative, np.int32))


QUERIES = [sides([0, 1, 2, 3], [10, 11, 12]), sides([20, 21, 22], [30, 31, 32, 33]), sides([4, 5], [])]


@pytest.fixture
def vectors() -> Vectors:
    return unit(np.random.default_rng(0).normal(size=(N, D)) + 0.5)


def plain(vectors: Vectors, queries: list[Sides]) -> npt.NDArray[np.float64]:
    """The two steps as they are written down, one side, one query, one direction after the other."""
    within, several, rank = np.zeros((D, D)), 0, 0
    for query in queries:
        for side in query:
            own = [vectors[seed].astype(np.float64) for seed in side if vectors[seed].any()]
            if len(own) > 1:
                mean = sum(own) / len(own)
                within += sum(np.outer(one - mean, one - mean) for one in own) / len(own)
                several, rank = several + 1, rank + len(own) - 1
    within /= several
    shrunk = within + SHRINKAGE * np.trace(within) / min(rank, D) * np.eye(D)
    root = np.linalg.inv(np.linalg.cholesky(shrunk)).T  # another root than the symmetric one: a rotation
    turned = vectors @ root
    turned /= np.maximum(np.linalg.norm(turned, axis=1, keepdims=True), 1e-12)
    between, both = np.zeros((D, D)), 0
    for positive, negative in queries:
        if len(positive) and len(negative):
            apart = turned[positive].mean(axis=0) - turned[negative].mean(axis=0)
            between, both = between + np.outer(apart, apart), both + 1
    values, directions = np.linalg.eigh(between / both)
    spread = turned.copy()
    for value, direction in sorted(zip(values, directions.T, strict=True), key=lambda one: -one[0])[
        :DIRECTIONS
    ]:
        share = np.sqrt(max(value, 0) / values.max())
        spread += GAIN * share * np.outer(turned @ direction, direction)
    return spread / np.maximum(np.linalg.norm(spread, axis=1, keepdims=True), 1e-12)


def test_it_is_what_two_plain_steps_compute(vectors: Vectors) -> None:
    """Up to a rotation, which no cosine knows of."""
    found, expected = discriminant_view(vectors, QUERIES), plain(vectors, QUERIES)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=2e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


def test_seeds_of_a_side_come_nearer_and_sides_part(vectors: Vectors) -> None:
    found = discriminant_view(vectors, QUERIES)

    def means(of: Vectors) -> tuple[float, float]:
        before = of @ of.T
        (positive, negative), *_ = QUERIES
        inside = before[np.ix_(positive, positive)][np.triu_indices(len(positive), 1)]
        return float(inside.mean()), float(before[np.ix_(positive, negative)].mean())

    (near, apart), (nearer, further) = means(vectors), means(found)
    assert nearer - further > near - apart


def test_the_order_of_queries_makes_no_difference(vectors: Vectors) -> None:
    one, other = (discriminant_view(vectors, some) for some in (QUERIES, QUERIES[::-1]))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_few_seeds_change_little(vectors: Vectors) -> None:
    """Two seeds differ in one direction by chance: it loses a part of its weight that is bounded."""
    found = discriminant_view(vectors, [sides([0, 1], [])])
    direction = unit((vectors[0] - vectors[1])[None])[0]
    lost = np.sqrt(SHRINKAGE / (1 + SHRINKAGE))
    expected = vectors + (lost - 1) * np.outer(vectors @ direction, direction)
    np.testing.assert_allclose(found, unit(expected), atol=1e-5)


@pytest.mark.parametrize(
    "queries", [[], [sides([0], [])], [sides([7, 7], [])], [sides([50], [50])], [sides([], [])]]
)
def test_what_seeds_say_nothing_of_stays(vectors: Vectors, queries: list[Sides]) -> None:
    """No query, one seed, seeds of one vector, sides that do not lie apart."""
    np.testing.assert_allclose(discriminant_view(vectors, queries), vectors, atol=1e-6)


def test_entities_without_a_vector_stay_without_and_are_no_seeds(vectors: Vectors) -> None:
    vectors[3] = vectors[11] = 0
    found = discriminant_view(vectors, QUERIES)
    assert not found[[3, 11]].any()
    without = [sides([0, 1, 2], [10, 12]), *QUERIES[1:]]
    np.testing.assert_allclose(found, discriminant_view(vectors, without), atol=1e-6)
