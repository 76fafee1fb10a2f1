"""The map of what sentences of one entity differ in: against plain loops, and where it says nothing."""

from __future__ import annotations

import numpy as np
import pytest

from engine.retrieval.index import unit
from engine.retrieval.views import ViewPart
from engine.retrieval.within_entities import Scatter, within_map

ENTITIES = np.array([4, 1, 4, 4, 1, 9, 1, 0])
STATES = np.random.default_rng(0).normal(size=(len(ENTITIES), 3)) * (5, 1, 0.2) + 7


def plain_map(shrinkage: float) -> np.ndarray:
    within, freedom = np.zeros((3, 3)), 0
    for entity in set(ENTITIES.tolist()):
        own = STATES[entity == ENTITIES]
        for state in own:
            within += np.outer(state - own.mean(axis=0), state - own.mean(axis=0))
        freedom += len(own) - 1
    within /= freedom
    shrunk = (1 - shrinkage) * within + shrinkage * np.trace(within) / 3 * np.eye(3)
    return np.linalg.inv(np.linalg.cholesky(shrunk)).T  # another root than the symmetric one: a rotation


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_the_map_is_what_plain_loops_compute(shrinkage: float) -> None:
    found = within_map([Scatter.of(ENTITIES, STATES)], shrinkage)
    assert found is not None
    expected = plain_map(shrinkage)
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(found, found.T, rtol=1e-5, atol=1e-6)


def test_an_entity_in_two_parts_is_one_in_each() -> None:
    parts = [Scatter.of(ENTITIES[some], STATES[some]) for some in (slice(0, 4), slice(4, 8))]
    renamed = np.concatenate([ENTITIES[:4], 100 + ENTITIES[4:]])
    found, expected = within_map(parts), within_map([Scatter.of(renamed, STATES)])
    assert found is not None
    assert expected is not None
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cosines_count_less_where_sentences_differ() -> None:
    """Two entities that differ in the first direction alone, as sentences of one do, are brought together."""
    told = within_map([Scatter.of(ENTITIES, STATES)])
    assert told is not None
    pair = np.array([[1.0, 1.0, 1.0], [-1.0, 1.0, 1.0]])
    before, after = (unit(one)[0] @ unit(one)[1] for one in (pair, pair @ told))
    assert before < 0.4 < 0.7 < after


def test_nothing_is_said_without_two_sentences_that_differ() -> None:
    one_each = Scatter.of(np.arange(3), STATES[:3])
    alike = Scatter.of(np.zeros(3, int), np.ones((3, 3)))
    assert within_map([]) is None
    assert within_map([one_each]) is None
    assert within_map([alike]) is None
    assert within_map([alike, Scatter.of(ENTITIES, STATES)]) is not None


def test_a_view_is_read_by_the_map_before_it_is_centred() -> None:
    told = within_map([Scatter.of(ENTITIES, STATES)])
    assert told is not None
    vectors = unit(np.random.default_rng(1).normal(size=(20, 3)).astype(np.float32) + 1)
    vectors[5] = 0
    mapped = unit(vectors @ told)
    there = np.asarray(vectors.any(axis=1))
    expected = unit(np.where(there[:, None], mapped - mapped[there].mean(axis=0), 0))
    part = ViewPart.centred(vectors, told)
    np.testing.assert_allclose(part.whole(), expected, atol=1e-5)
    np.testing.assert_allclose(part.rows(np.array([5, 7])), expected[[5, 7]], atol=1e-5)
    assert not part.rows(slice(5, 6)).any()
