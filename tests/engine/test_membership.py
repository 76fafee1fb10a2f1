"""Probabilities that entities belong: the documented formula, its fit, and where a set is said to end."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.membership import (
    CONSTANTS,
    FITTED,
    MEMBERSHIP,
    Answered,
    Constants,
    all_constants,
    cohesion,
    f1_above,
    fit,
    outdated,
    probabilities,
    proposed,
    proposed_f1,
    read_constants,
    reliability,
    write_constants,
)
from engine.query import Expansion, Query, Ranking
from engine.retrieval.index import unit
from engine.stages.membership import PROBABILITY, PROPOSED, noted, open_cohesions
from engine.storage.bundle import Bundle
from engine.storage.publishing import derive
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

HAND = Constants(bias=-1.0, score=10.0, cohesion=-2.0, cohesive_score=5.0)


def by_hand(scores: np.ndarray, h: float) -> list[float]:
    return [1 / (1 + math.exp(-(-1 + 10 * s - 2 * h + 5 * h * s))) for s in scores.tolist()]


def test_the_probability_is_the_documented_formula() -> None:
    scores = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1], np.float32)
    assert probabilities(scores, 0.6, HAND) == pytest.approx(by_hand(scores, 0.6), rel=1e-6)
    assert probabilities(scores, -0.6, HAND) == pytest.approx(by_hand(scores, 0), rel=1e-6)
    # Of a single seed the first five scores stand for it.
    assert probabilities(scores, None, HAND) == pytest.approx(by_hand(scores, 0.3), rel=1e-6)
    assert len(probabilities(scores[:0], None, HAND)) == proposed(np.zeros(0)) == 0


def plain_cohesion(vectors: np.ndarray, weights: np.ndarray) -> float:
    pairs = [(i, j) for i in range(len(vectors)) for j in range(i)]
    products = [weights[i] * weights[j] for i, j in pairs]
    cosines = [float(vectors[i].astype(np.float64) @ vectors[j]) for i, j in pairs]
    return float(np.average(cosines, weights=products))


@pytest.mark.parametrize("seeds", [2, 3, 7])
def test_cohesion_is_the_mean_over_all_pairs(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    vectors, weights = unit(rng.normal(size=(seeds, 8)) + 0.5), rng.uniform(0.1, 3, seeds)
    assert cohesion(vectors) == pytest.approx(plain_cohesion(vectors, np.ones(seeds)))
    assert cohesion(vectors, weights) == pytest.approx(plain_cohesion(vectors, weights))
    # A seed without a vector is none, and one seed is like no other.
    more = np.vstack([vectors, np.zeros((1, 8), np.float32)])
    assert cohesion(more, np.append(weights, 2.0)) == pytest.approx(plain_cohesion(vectors, weights))
    assert cohesion(more[[0, -1]]) is None


ordered = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30).map(
    lambda values: np.array(sorted(values, reverse=True), np.float32)
)


@given(
    ordered,
    st.one_of(st.none(), st.floats(-1, 1)),
    st.tuples(st.floats(-5, 5), st.floats(0, 40), st.floats(-40, 40), st.floats(0, 40)),
)
def test_a_higher_score_never_has_a_lower_probability(scores, own, constants) -> None:
    found = probabilities(scores, own, Constants(*constants))
    assert np.all(np.diff(found) <= 0)
    assert np.all((found >= 0) & (found <= 1))


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=40).map(sorted))
def test_the_proposed_set_has_the_highest_expected_f1(ascending: list[float]) -> None:
    values = ascending[::-1]
    expected = [2 * sum(values[:k]) / (k + sum(values)) for k in range(1, len(values) + 1)]
    assert expected[proposed(np.array(values)) - 1] == pytest.approx(max(expected))


def test_what_lies_beyond_the_fitted_does_not_move_the_end() -> None:
    values = np.concatenate([np.full(20, 0.9), np.full(FITTED - 20, 0.15)])
    long = np.concatenate([values, np.full(4000, 0.15)])
    assert proposed(values) == proposed(long) == 20
    expected = 2 * np.cumsum(long) / (np.arange(1, len(long) + 1) + long.sum())
    assert int(expected.argmax()) + 1 > FITTED, "all of it would"


def drawn(constants: Constants, n_lists: int, label: str = "") -> list[Answered]:
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(n_lists):
        scores = np.sort(rng.uniform(-0.1, rng.uniform(0.1, 0.5), 200).astype(np.float32))[::-1]
        own = float(rng.uniform(0, 0.6))
        true = rng.uniform(size=200) < probabilities(scores, own, constants)
        lists.append(Answered(label, scores, true, int(true.sum()), own))
    return lists


def test_a_fit_finds_what_lists_were_drawn_by() -> None:
    true = Constants(-2.0, 15.0, -4.0, 10.0)
    found = fit(drawn(true, 300))
    assert found == pytest.approx(true, abs=0.6)
    lists = drawn(true, 40)
    said = np.concatenate([probabilities(one.scores, one.cohesion, found) for one in lists])
    assert reliability(said, np.concatenate([one.true for one in lists])).error < 0.02
    # Where low scores belong, the slopes stop at nothing: order and probability never disagree.
    found = fit([one._replace(true=~one.true) for one in drawn(true, 20)])
    assert (found.score, found.cohesive_score) == (0, 0)
    one = Answered("", np.zeros(3, np.float32), np.zeros(3, bool), 3)
    for flags in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ValueError, match="none belongs, or all do"):
            fit([one._replace(true=flags)])


def test_every_class_counts_alike_however_many_lists_it_has() -> None:
    few, many = drawn(Constants(-2.0, 15.0, 0.0, 0.0), 6, "a"), drawn(HAND, 6, "b")
    assert fit([*few, *many * 3]) == pytest.approx(fit([*few, *many]), rel=1e-3)
    assert fit([*few, *[one._replace(label="a") for one in many * 3]]) != pytest.approx(
        fit([*few, *many]), rel=1e-2
    )


def test_reliability_by_hand() -> None:
    said = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    true = np.array([False, True, False, True, True])
    found = reliability(said, true)
    assert found.said == pytest.approx([0.05, 0.15, 0.975])
    assert found.true == pytest.approx([0, 0.5, 1])
    assert found.entities.tolist() == [1, 2, 2]
    assert found.error == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5)


def test_f1_of_a_proposed_set_by_hand() -> None:
    one = Answered("", np.zeros(4, np.float32), np.array([True, True, True, False]), 4)
    found = proposed_f1(np.array([0.9, 0.8, 0.1, 0.1]), one)
    assert found == pytest.approx((2 * 2 / (2 + 4), 2 * 3 / (3 + 4)))
    true = np.array([False, True, False, True])
    said = np.array([0.9, 0.8, 0.5, 0.1])
    assert [f1_above(said, true, 3, least) for least in (0.95, 0.8, 0.0)] == [0, 2 / 5, 4 / 7]


def test_a_stage_notes_probabilities_and_keeps_the_order() -> None:
    scores = np.array([0.4, 0.1, -0.2], np.float32)
    before = Expansion(Query("q", (0,)), Ranking(np.array([5, 3, 9], np.int32), scores), counts={"seen": 1})
    after = noted(before, 0.2, HAND)
    assert after.ranking.ids.tolist() == [5, 3, 9]
    assert after.ranking.scores.tolist() == scores.tolist()
    said = probabilities(scores, 0.2, HAND)
    assert after.ranking.evidence[PROBABILITY] == pytest.approx(said)
    assert after.counts == {"seen": 1, PROPOSED: proposed(said)}


def test_seeds_are_compared_in_the_view_by_their_weights(tmp_path: Path) -> None:
    joint, mask = unit(np.random.default_rng(0).normal(size=(2, 4, 6)))
    bundle = publish_vectors(Workspace.open(tmp_path / "w"), list("abcd"), {"joint": joint, "mask": mask})
    queries = [Query("q", (0, 1, 3), weights=((1, 2.0),)), Query("one", (2,)), Query("q", (), (1,))]
    for view, vectors in (("joint", joint), ("mask", mask)):
        first, *others = open_cohesions(bundle, view)(queries)
        assert first == pytest.approx(plain_cohesion(vectors[[0, 1, 3]], np.array([1, 2, 1])), rel=1e-5)
        assert others == [None, None]


def bundle_with(folder: Path, content: str | None) -> Bundle:
    """Return a bundle with constants in a file of this content; None: without one."""
    workspace = Workspace.open(folder)
    bundle = publish_vectors(workspace, ["a", "b"], {"joint": np.eye(2)})
    if content is None:
        return bundle
    staged = workspace.bundles.staging()
    (workspace.bundles / bundle.id / "entities.parquet").fetch(staged / "entities.parquet")
    (staged / MEMBERSHIP).write_text(content)
    derive(workspace, staged, {}, replaces=())
    return Bundle.open(workspace)


def test_constants_are_the_bundles_else_those_of_the_program(tmp_path: Path) -> None:
    plain = bundle_with(tmp_path / "plain", None)
    assert read_constants(plain, "default") == CONSTANTS["default"]
    with pytest.raises(BundleError, match=r"'retexpan'.*seedset calibrate --method retexpan"):
        read_constants(plain, "retexpan")
    write_constants(tmp_path / "file", {"retexpan": HAND, "default": HAND})
    own = bundle_with(tmp_path / "own", (tmp_path / "file").read_text())
    assert read_constants(own, "retexpan") == read_constants(own, "default") == HAND
    broken = bundle_with(tmp_path / "broken", '{"default": 1}')
    with pytest.raises(BundleError, match=r"membership.json cannot be read"):
        read_constants(broken, "default")
    former = bundle_with(tmp_path / "former", '{"default": [1, 2, 3, 4], "x": {"bias": 1}}')
    assert all_constants(former) == {}
    assert outdated(former) == ["default", "x"]
    with pytest.raises(BundleError, match=r"another formula.*seedset calibrate --method default.* again"):
        read_constants(former, "default")
