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
    LEAST,
    MEMBERSHIP,
    Constants,
    f1_above,
    fit,
    probabilities,
    proposed,
    proposed_f1,
    read_constants,
    reliability,
    write_constants,
)
from engine.query import Expansion, Query, Ranking
from engine.stages.membership import PROBABILITY, PROPOSED, noted
from engine.storage.bundle import Bundle
from engine.storage.publishing import derive
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

HAND = Constants(bias=-1.0, score=10.0, relative=0.5, level=-2.0)


def test_the_probability_is_the_documented_formula() -> None:
    scores = np.array([0.5, 0.4, 0.3, 0.2, 0.1, 0.0, -0.1], np.float32)
    level = (0.5 + 0.4 + 0.3 + 0.2 + 0.1) / 5
    expected = [1 / (1 + math.exp(-(-1 + 10 * s + 0.5 * s / level - 2 * level))) for s in scores.tolist()]
    assert probabilities(scores, HAND) == pytest.approx(expected, rel=1e-6)
    low = np.array([0.001], np.float32)
    assert probabilities(low, HAND)[0] == pytest.approx(
        1 / (1 + math.exp(-(-1 + 0.01 + 0.5 * 0.001 / LEAST - 0.002))), rel=1e-6
    )
    assert len(probabilities(low[:0], HAND)) == proposed(np.zeros(0)) == 0


ordered = st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=30).map(
    lambda values: np.array(sorted(values, reverse=True), np.float32)
)


@given(ordered, st.tuples(st.floats(-5, 5), st.floats(0, 40), st.floats(0, 5), st.floats(-40, 40)))
def test_a_higher_score_never_has_a_lower_probability(scores, constants) -> None:
    found = probabilities(scores, Constants(*constants))
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


def drawn(constants: Constants, n_lists: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    lists = []
    for _ in range(n_lists):
        scores = np.sort(rng.uniform(-0.1, rng.uniform(0.1, 0.5), 200).astype(np.float32))[::-1]
        lists.append((scores, rng.uniform(size=200) < probabilities(scores, constants)))
    return lists


def test_a_fit_finds_what_lists_were_drawn_by() -> None:
    true = Constants(-2.0, 15.0, 1.0, -6.0)
    found = fit(drawn(true, 300))
    assert found == pytest.approx(true, abs=0.6)
    lists = drawn(true, 40)
    said = np.concatenate([probabilities(scores, found) for scores, _ in lists])
    assert reliability(said, np.concatenate([flags for _, flags in lists])).error < 0.02
    # Where low scores belong, the slopes stop at nothing: order and probability never disagree.
    assert fit([(scores, ~flags) for scores, flags in drawn(true, 20)])[1:3] == (0, 0)
    scores = np.zeros(3, np.float32)
    for flags in (np.zeros(3, bool), np.ones(3, bool)):
        with pytest.raises(ValueError, match="none belongs, or all do"):
            fit([(scores, flags)])


def test_reliability_by_hand() -> None:
    said = np.array([0.05, 0.15, 0.15, 0.95, 1.0])
    true = np.array([False, True, False, True, True])
    found = reliability(said, true)
    assert found.said == pytest.approx([0.05, 0.15, 0.975])
    assert found.true == pytest.approx([0, 0.5, 1])
    assert found.entities.tolist() == [1, 2, 2]
    assert found.error == pytest.approx((1 * 0.05 + 2 * 0.35 + 2 * 0.025) / 5)


def test_f1_of_a_proposed_set_by_hand() -> None:
    found = proposed_f1(np.array([0.9, 0.8, 0.1, 0.1]), np.array([True, True, True, False]), 4)
    assert found == pytest.approx((2 * 2 / (2 + 4), 2 * 3 / (3 + 4)))
    true = np.array([False, True, False, True])
    said = np.array([0.9, 0.8, 0.5, 0.1])
    assert [f1_above(said, true, 3, least) for least in (0.95, 0.8, 0.0)] == [0, 2 / 5, 4 / 7]


def test_a_stage_notes_probabilities_and_keeps_the_order() -> None:
    scores = np.array([0.4, 0.1, -0.2], np.float32)
    before = Expansion(Query("q", (0,)), Ranking(np.array([5, 3, 9], np.int32), scores), counts={"seen": 1})
    after = noted(before, HAND)
    assert after.ranking.ids.tolist() == [5, 3, 9]
    assert after.ranking.scores.tolist() == scores.tolist()
    assert after.ranking.evidence[PROBABILITY] == pytest.approx(probabilities(scores, HAND))
    assert after.counts == {"seen": 1, PROPOSED: proposed(probabilities(scores, HAND))}


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
    broken = bundle_with(tmp_path / "broken", '{"default": [1]}')
    with pytest.raises(BundleError, match=r"membership.json cannot be read"):
        read_constants(broken, "default")
