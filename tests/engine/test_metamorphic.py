"""Entities that differ in one thing: nearer to a positive seed is no lower, nearer to a negative no higher.

The vectors have whole numbers over 64 and the length 1 exactly, so that all else is equal to the last bit.
Asked are the methods that rank by vectors alone. Others have no such "nearer": likelihoods, predicted
distributions and shared contexts are not distances to a seed; what holds of all is in ``test_every_method``.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache
from math import exp, isqrt, log
from typing import NamedTuple

import numpy as np
import pytest

from engine.entity_types import TYPES, EntityTypes
from engine.methods import METHODS
from engine.query import Expansion, Query
from engine.stages.rerank import SegmentRerank
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

PARTS = 64
GROUPS = 14
DIMENSIONS = 5 + 4
POSITIVE, NEGATIVE = (0, 1, 2), (3, 4)
"""Seeds: each is an axis of its own."""

VIEWS = ("joint", "mask", "description", "lexical", "multimodal", "contrast")
BY_VECTORS = (
    *("retexpan", "retexpan+cds", "retexpan-negative", "retexpan+contrast", "retexpan+types", "default"),
    *("joint", "description", "lexical", "multimodal", "mean", "sum"),
)


class Group(NamedTuple):
    """Ids of an entity, and of those that differ from it: in nothing, nearer to a positive, to a negative."""

    base: int
    same: int
    nearer: int
    negative: int


@cache
def four_squares(total: int) -> tuple[int, int, int, int]:
    """Return four whole numbers whose squares add up to a number, as Lagrange says that there are."""
    for a, b, c in itertools.product(range(isqrt(total), -1, -1), repeat=3):
        rest = total - a * a - b * b - c * c
        if rest >= 0 and isqrt(rest) ** 2 == rest:
            return a, b, c, isqrt(rest)
    raise AssertionError(total)


def entity(cosines: np.ndarray) -> np.ndarray:
    """Return the vector of these cosines to the seeds, in parts, whose length is exactly 1."""
    rest = four_squares(PARTS**2 - int((cosines**2).sum()))
    return np.array([*cosines, *rest], np.float64) / PARTS


def made() -> tuple[np.ndarray, list[Group], np.ndarray]:
    """Return the vectors, the groups of entities, and a hubness that is the same within a group."""
    random = np.random.default_rng(7)
    ids = iter((5 + random.permutation(4 * GROUPS)).tolist())
    vectors = np.zeros((5 + 4 * GROUPS, DIMENSIONS))
    vectors[:5, :5] = np.eye(5)
    hubness, groups = np.zeros(len(vectors)), []
    for _ in range(GROUPS):
        group = Group(*itertools.islice(ids, 4))
        cosines = random.integers(2, 22, 5)
        vectors[list(group)] = entity(cosines)
        for one, axis in ((group.nearer, random.integers(0, 3)), (group.negative, random.integers(3, 5))):
            changed = cosines.copy()
            changed[axis] += random.integers(1, 6)
            vectors[one] = entity(changed)
        hubness[list(group)] = random.random() / 4
        groups.append(group)
    return vectors, groups, hubness


VECTORS, GROUPED, HUBNESS = made()
QUERY = Query("q", POSITIVE, NEGATIVE, top_k=len(VECTORS))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    n = len(VECTORS)
    alike = EntityTypes.collect(["thing"], np.arange(n), np.zeros(n, int), np.full(n, 0.9), np.ones(n, int))
    return publish_vectors(
        Workspace.open(tmp_path_factory.mktemp("near")),
        [f"entity {i}" for i in range(n)],
        dict.fromkeys(VIEWS, VECTORS),
        {"joint": HUBNESS},
        more=lambda staged: alike.write(staged / TYPES),
    )


def answer(bundle: Bundle, name: str, query: Query = QUERY) -> Expansion:
    (found,) = METHODS[name].open(bundle)([query], strict=True)
    assert len(found.ranking) == len(VECTORS) - len(query.seeds)
    return found


@pytest.mark.parametrize("name", BY_VECTORS)
def test_nearer_to_a_positive_never_ranks_lower_and_nearer_to_a_negative_never_higher(
    bundle: Bundle, name: str
) -> None:
    ranking = answer(bundle, name).ranking
    place = {int(i): at for at, i in enumerate(ranking.ids)}
    score = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    assert ranking.scores.tolist() == sorted(ranking.scores.tolist(), reverse=True)
    in_segments = any(isinstance(stage, SegmentRerank) for stage in METHODS[name].stages)
    segment = dict(zip(ranking.ids.tolist(), ranking.evidence.get("segment", ranking.ids), strict=True))
    for group in GROUPED:
        assert place[group.nearer] < place[group.base]
        assert (place[group.same] < place[group.base]) == (group.same < group.base), "ties are by id"
        if not in_segments:
            assert score[group.negative] <= score[group.base]
            assert score[group.same] == score[group.base]
        elif segment[group.negative] == segment[group.base]:  # across segments nothing moves
            assert place[group.negative] > place[group.base]
    if name == "default":
        assert all(place[group.negative] > place[group.base] for group in GROUPED)


def plain_default(i: int, weights: dict[int, float]) -> float:
    """Return the documented score of the method ``default`` of an entity, by loops."""

    def mean(values: dict[int, float]) -> float:
        return sum(weights.get(s, 1) * v for s, v in values.items()) / sum(weights.get(s, 1) for s in values)

    near = {seed: float(VECTORS[i] @ VECTORS[seed]) for seed in (*POSITIVE, *NEGATIVE)}
    plus, minus = mean({s: near[s] for s in POSITIVE}), mean({s: near[s] for s in NEGATIVE})
    soft = -0.5 * log(mean({s: exp(-near[s] / 0.5) for s in POSITIVE}))
    return plus - 0.6 * HUBNESS[i] + soft - plus - 0.05 * log(1 + exp((minus - plus) / 0.05))


@pytest.mark.parametrize("weights", [(), ((0, 4.0), (2, 0.5), (3, 0.1))])
def test_scores_are_the_documented_formula(bundle: Bundle, weights: tuple[tuple[int, float], ...]) -> None:
    weighed, query = dict(weights), replace(QUERY, weights=weights)
    ranking = answer(bundle, "default", query).ranking
    expected = {i: plain_default(i, weighed) for i in range(5, len(VECTORS))}
    np.testing.assert_allclose(ranking.scores, [expected[int(i)] for i in ranking.ids], atol=2e-6)
    recalled = answer(bundle, "joint", query).ranking
    share = np.array([weighed.get(seed, 1) for seed in POSITIVE])
    means = VECTORS[:, :3] @ share / share.sum()
    np.testing.assert_allclose(recalled.scores, means[recalled.ids], atol=1e-6)
    assert answer(bundle, "retexpan", query).ranking.scores.tolist() == recalled.scores.tolist()
    if not weights:
        order = np.lexsort((recalled.ids, -recalled.scores))
        assert order.tolist() == list(range(len(order))), "ties are by id"


@pytest.mark.parametrize("name", BY_VECTORS)
def test_a_heavier_seed_draws_what_is_near_to_it(bundle: Bundle, name: str) -> None:
    heavy = replace(QUERY, weights=((1, 1000.0),))
    first = answer(bundle, name, heavy).ranking.ids[: 2 * GROUPS]
    plain = answer(bundle, name).ranking.ids[: 2 * GROUPS]
    assert VECTORS[first, 1].mean() > VECTORS[plain, 1].mean()


def test_negative_seeds_alone_are_ranked_from_the_farthest(bundle: Bundle) -> None:
    for name in ("default", "retexpan", "joint"):
        ranking = answer(bundle, name, replace(QUERY, positive=())).ranking
        similarity = VECTORS[:, 3:5].mean(axis=1)
        np.testing.assert_allclose(ranking.scores, -similarity[ranking.ids], atol=1e-6)
        assert ranking.ids.tolist() == sorted(ranking.ids.tolist(), key=lambda i: (similarity[i], i))
