"""Weights of the views within the joint one: plain loops, and what any weights have in common."""

from __future__ import annotations

import math
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.query import Query
from engine.retrieval.discriminant import DISCRIMINANT
from engine.retrieval.index import VectorIndex, unit
from engine.retrieval.view_weights import MAPPED, OTHERS, ViewWeights, parts_of_joint
from engine.stages.base import Pipeline
from engine.stages.rerank import ContrastRerank
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors
from tests.support.shards import provide_shards

N, SIZES, STRENGTH = 40, (3, 4, 2), 0.4
VIEWS = dict(zip(("mask", "description", "lexical"), SIZES, strict=True))


def views_drawn(seed: int = 0) -> list[np.ndarray]:
    """Return unit vectors by view; some entities have no description, and the last one nothing."""
    random = np.random.default_rng(seed)
    views = [unit(random.normal(size=(N, size))) for size in SIZES]
    views[1][::5] = 0
    for one in views:
        one[-1] = 0
    return views


def joined(views: list[np.ndarray]) -> np.ndarray:
    return unit(np.concatenate(views, axis=1))


def open_bundle(folder: Path, settings: dict | None = None) -> Bundle:
    vectors = {"joint": joined(views_drawn()), "mask": views_drawn()[0]}
    made = publish_vectors(Workspace.open(folder), [f"e{i}" for i in range(N)], vectors)
    about = {"views": {**VIEWS, "joint": sum(SIZES)}} if settings is None else settings
    return Bundle(made.manifest.model_copy(update={"settings": about}), made.folder)


def weights_by_loops(views: list[np.ndarray], plus: list[int], minus: list[int]) -> list[float]:
    """Return the documented formula of some seeds, a pair at a time."""
    z = []
    for one in views:
        there = [i for i in range(N) if one[i].any()]
        every = [float(one[i] @ one[j]) for i, j in product(there, there) if i != j]
        mean = sum(every) / len(every)
        deviation = math.sqrt(sum((c - mean) ** 2 for c in every) / len(every))
        pairs = [float(one[i] @ one[j]) for i, j in combinations(plus, 2)]
        across = [float(one[i] @ one[j]) for i, j in product(plus, minus)]
        z.append((sum(pairs) / len(pairs) - sum(across) / len(across)) / deviation)
    raised = [math.exp(STRENGTH * one) for one in z]
    return [len(views) * one / sum(raised) for one in raised]


def test_weights_and_scores_are_those_of_the_formula(tmp_path: Path) -> None:
    bundle, views = open_bundle(tmp_path), views_drawn()
    plus, minus, (m, T) = [3, 11, 20], [5, 7], (0.5, 0.05)
    weights = weights_by_loops(views, plus, minus)
    assert max(weights) / min(weights) > 1.2

    def cosine(entity: int, seed: int) -> float:
        """A weighted mean of the views' cosines, each entity's share of the joint vector equal."""
        lengths = [math.sqrt(sum(bool(one[i].any()) for one in views)) for i in (entity, seed)]
        products = [w * float(one[entity] @ one[seed]) for w, one in zip(weights, views, strict=True)]
        return sum(products) / (lengths[0] * lengths[1])

    recall = Retrieve(k=N, view="joint", view_weights=STRENGTH)
    rerank = ContrastRerank(temperature=T, soft_minimum=m, view_weights=STRENGTH)
    query = Query("q", tuple(plus), tuple(minus), top_k=N)
    (first,), (last,) = (
        pipeline.open(bundle)([query]) for pipeline in (Pipeline((recall,)), recall >> rerank)
    )
    assert len(first.ranking) == len(last.ranking) == N - len(plus) - len(minus) - 1
    for entity, score in zip(first.ranking.ids.tolist(), first.ranking.scores.tolist(), strict=True):
        assert score == pytest.approx(np.mean([cosine(entity, seed) for seed in plus]), abs=1e-5)
    for entity, score in zip(last.ranking.ids.tolist(), last.ranking.scores.tolist(), strict=True):
        near = [cosine(entity, seed) for seed in plus]
        away = np.mean([cosine(entity, seed) for seed in minus])
        least = -m * math.log(np.mean([math.exp(-c / m) for c in near]))
        lost = T * math.log(1 + math.exp((away - np.mean(near)) / T))
        assert score == pytest.approx(least - lost, abs=1e-5)
    assert first.degraded == last.degraded == ()


def test_an_index_in_parts_weighs_as_the_whole(tmp_path: Path) -> None:
    bundle = open_bundle(tmp_path)
    pipeline = Retrieve(k=9, view="joint", view_weights=STRENGTH) >> ContrastRerank(view_weights=STRENGTH)
    queries = [Query("a", (3, 11), (5,), top_k=9), Query("b", (2,), (), top_k=9), Query("c", (1, 4, 8), (9,))]
    whole = pipeline.open(bundle)(queries)
    cut = Bundle(bundle.manifest, bundle.folder)
    provide_shards(cut, "joint", 3)
    for found, expected, alone in zip(
        pipeline.open(cut)(queries),
        whole,
        [pipeline.open(bundle)([query])[0] for query in queries],
        strict=True,
    ):
        assert found.ranking.ids.tolist() == expected.ranking.ids.tolist() == alone.ranking.ids.tolist()
        assert found.ranking.scores.tolist() == expected.ranking.scores.tolist()
        assert alone.ranking.scores.tolist() == expected.ranking.scores.tolist()


@given(
    seed=st.integers(0, 50),
    strength=st.floats(0.01, 5),
    plus=st.lists(st.integers(0, N - 2), min_size=2, max_size=5, unique=True),
    minus=st.lists(st.integers(0, N - 2), min_size=1, max_size=4),
)
def test_weights_are_positive_of_mean_one_and_follow_how_far_seeds_lie_apart(
    seed: int, strength: float, plus: list[int], minus: list[int]
) -> None:
    """No weight is below zero: an entity nearer to a positive seed in any view has never a lower score."""
    joint = joined(views_drawn(seed))
    index = VectorIndex(joint)
    one = ViewWeights.measured(index, SIZES, N, strength)
    weights = one.of(joint[plus], joint[minus])
    assert (weights >= 0).all()
    assert weights.mean() == pytest.approx(1)
    more = ViewWeights(SIZES, one.deviations_V, 2 * strength).of(joint[plus], joint[minus])
    assert more.max() >= weights.max() - 1e-9
    assert more.argmax() == weights.argmax() or weights.max() == pytest.approx(weights[more.argmax()])
    np.testing.assert_array_equal(one.factors(joint[plus], joint[minus]), np.repeat(weights, SIZES))


@pytest.mark.parametrize(("plus", "minus"), [([1], [2]), ([1, 2], []), ([1, N - 1], [2]), ([1, 2], [N - 1])])
def test_seeds_that_tell_nothing_apart_leave_the_views_as_they_are(plus: list[int], minus: list[int]) -> None:
    joint = joined(views_drawn())
    weights = ViewWeights.measured(VectorIndex(joint), SIZES, N, STRENGTH)
    assert weights.of(joint[plus], joint[minus]).tolist() == [1, 1, 1]


def test_a_view_that_no_entity_has_counts_for_nothing() -> None:
    views = views_drawn()
    views[1][:] = 0
    joint = joined(views)
    weights = ViewWeights.measured(VectorIndex(joint), SIZES, N, STRENGTH).of(joint[[3, 11]], joint[[5]])
    assert weights[1] == 1
    assert weights[0] + weights[2] == pytest.approx(2)
    assert weights[0] != pytest.approx(1)


def test_views_that_cannot_be_weighed_count_alike_with_a_note(tmp_path: Path) -> None:
    mixed = open_bundle(tmp_path, {"views": {**VIEWS, "joint": 9}, DISCRIMINANT: {"lists": "x"}})
    query = Query("q", (3, 11), (5,), top_k=9)
    plain = Retrieve(k=9, view="joint") >> ContrastRerank()
    weighed = Retrieve(k=9, view="joint", view_weights=1) >> ContrastRerank(view_weights=1)
    (expected,), (found,) = (pipeline.open(mixed)([query]) for pipeline in (plain, weighed))
    assert found.ranking.scores.tolist() == expected.ranking.scores.tolist()
    assert found.degraded == (f"Retrieve: {MAPPED}", f"ContrastRerank: {MAPPED}")
    with pytest.raises(BundleError, match="only the view 'joint' is made of others, not 'mask'"):
        Retrieve(view="mask", view_weights=1).open(mixed)


@pytest.mark.parametrize(
    ("views", "sizes"),
    [
        ({**VIEWS, "joint": 9}, SIZES),
        ({**VIEWS, "contrast": 3, "joint": 9}, SIZES),
        ({**VIEWS, "adapted": 3, "types": 5, "joint": 17}, (3, 3, 4, 2, 5)),
        ({**VIEWS, "multimodal": 3, "joint": 9}, None),
        ({**VIEWS, "joint": 12}, None),
        ({}, None),
    ],
)
def test_parts_are_those_of_the_manifest(views: dict[str, int], sizes: tuple[int, ...] | None) -> None:
    found = parts_of_joint(SimpleNamespace(settings={"views": views}))  # type: ignore[arg-type]
    assert found == ((sizes, "") if sizes else (None, OTHERS))
