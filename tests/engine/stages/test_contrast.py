"""ContrastRerank and hub correction against cases computed by hand, and against the plain formula."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.methods import METHODS
from engine.query import Expansion, Query
from engine.retrieval.index import VectorIndex
from engine.stages.rerank import ContrastRerank, soft_minimum
from engine.stages.retrieve import Retrieve
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors

# Seeds 0 (positive) and 1 (negative) stand at right angles; 2 leans to 0, 3 lies between, 4 leans to 1.
VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [1.0, 1.0], [0.6, 0.8]])


def run(folder: Path, negative: tuple[int, ...], temperature: float = 0.05) -> Expansion:
    bundle = publish_vectors(Workspace.open(folder), list("abcde"), {"joint": VECTORS})
    pipeline = Retrieve(k=3, view="joint") >> ContrastRerank(temperature=temperature)
    (found,) = pipeline.open(bundle)([Query("q", (0,), negative)])
    return found


def test_scores_are_those_of_the_formula(tmp_path: Path) -> None:
    ranking = run(tmp_path, (1,)).ranking
    assert ranking.ids.tolist() == [2, 3, 4]
    between = math.sqrt(0.5) - 0.05 * math.log(2)
    leans_over = 0.6 - 0.05 * math.log(1 + math.exp(0.2 / 0.05))
    leans_to = 0.8 - 0.05 * math.log(1 + math.exp(-0.2 / 0.05))
    np.testing.assert_allclose(ranking.scores, [leans_to, between, leans_over], rtol=1e-5)
    np.testing.assert_allclose(ranking.evidence["negative"], [0.6, math.sqrt(0.5), 0.8], rtol=1e-5)
    np.testing.assert_allclose(ranking.evidence["positive"], [0.8, math.sqrt(0.5), 0.6], rtol=1e-5)


def test_without_negative_seeds_nothing_changes(tmp_path: Path) -> None:
    ranking = run(tmp_path, ()).ranking
    assert ranking.ids.tolist() == [2, 3, 4, 1][: len(ranking)]
    np.testing.assert_allclose(ranking.scores[:3], [0.8, math.sqrt(0.5), 0.6], rtol=1e-5)
    assert "negative" not in ranking.evidence


def test_a_soft_minimum_is_the_formula_with_and_without_negative_seeds(tmp_path: Path) -> None:
    bundle = publish_vectors(Workspace.open(tmp_path), list("abcde"), {"joint": VECTORS})
    stage = ContrastRerank(temperature=0.05, soft_minimum=0.1)
    queries = [Query("q", (0, 1), (4,), top_k=2), Query("q", (0, 1), top_k=2)]
    with_negative, without = (Retrieve(k=2, view="joint") >> stage).open(bundle)(queries)
    cosines = {2: (0.8, 0.6), 3: (math.sqrt(0.5),) * 2}
    least = {i: -0.1 * math.log(sum(math.exp(-c / 0.1) for c in cs) / 2) for i, cs in cosines.items()}
    assert without.ranking.ids.tolist() == [3, 2]
    np.testing.assert_allclose(without.ranking.scores, [least[3], least[2]], rtol=1e-5)
    np.testing.assert_allclose(without.ranking.evidence["agreement"], [least[3], least[2]], rtol=1e-5)
    negative = {2: 0.8 * 0.6 + 0.6 * 0.8, 3: math.sqrt(0.5) * 1.4}
    lost = {i: 0.05 * math.log(1 + math.exp((negative[i] - sum(cosines[i]) / 2) / 0.05)) for i in cosines}
    expected = {i: least[i] - lost[i] for i in cosines}
    scores = dict(zip(with_negative.ranking.ids.tolist(), with_negative.ranking.scores.tolist(), strict=True))
    assert scores == pytest.approx(expected, rel=1e-5)


@given(
    values=st.lists(st.lists(st.floats(-1, 1), min_size=3, max_size=3), min_size=1, max_size=6),
    temperature=st.floats(0.01, 100),
    raised=st.integers(0, 5),
    by=st.floats(0, 1),
)
def test_a_soft_minimum_lies_between_minimum_and_mean_and_rises_with_each_value(
    values: list[list[float]], temperature: float, raised: int, by: float
) -> None:
    table = np.array(values)
    found = soft_minimum(table, temperature)
    assert (found >= table.min(axis=0) - 1e-6).all()
    assert (found <= table.mean(axis=0) + 1e-6).all()
    table[raised % len(table)] += by
    assert (soft_minimum(table, temperature) >= found - 1e-6).all()


@pytest.mark.parametrize("hubness", [0.0, 0.6])
def test_retrieval_with_hub_correction_equals_the_plain_sum(tmp_path: Path, hubness: float) -> None:
    bundle = method_bundle(tmp_path, n=300, d=12)
    query = Query("q", (3, 9), (5,), top_k=40)
    (found,) = (Retrieve(k=40, view="joint", hubness=hubness) >> ContrastRerank()).open(bundle)([query])
    vectors = VectorIndex.read(bundle.path("index/joint.faiss")).vectors_ND.astype(np.float64)
    hubs = np.load(bundle.path("index/joint.hubness.npy"))
    plain = vectors @ vectors[[3, 9]].mean(axis=0) - hubness * hubs
    plain[[3, 9, 5]] = -np.inf
    recalled = np.lexsort((np.arange(300), -plain))[:40]
    assert set(found.ranking.ids) == set(recalled)


def test_the_default_method_never_returns_a_seed(tmp_path: Path) -> None:
    run_default = METHODS["default"].open(method_bundle(tmp_path))
    rng = np.random.default_rng(1)
    draws = [np.split(rng.permutation(500)[:8], 2) for _ in range(20)]
    queries = [Query(str(i), tuple(liked), tuple(not_liked)) for i, (liked, not_liked) in enumerate(draws)]
    for found in run_default(queries):
        assert not set(found.ranking.ids) & set(found.query.seeds)
        assert len(found.ranking) == 200
        assert (np.diff(found.ranking.scores) <= 0).all()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_default_methods_scores_are_its_formula_and_rise_with_nearness(tmp_path: Path, seed: int) -> None:
    """As near to every positive seed or nearer, as far from every negative one or farther, and no more of a
    hub: such an entity never stands behind the other. Compared with each other are all pairs."""
    random = np.random.default_rng(seed)
    joint, hubness = random.normal(size=(300, 6)), random.random(300)
    names = [f"entity {i}" for i in range(300)]
    bundle = publish_vectors(Workspace.open(tmp_path), names, {"joint": joint}, {"joint": hubness})
    drawn = random.permutation(300)[:5].tolist()
    query = Query("q", tuple(drawn[:3]), tuple(drawn[3:]))
    (found,) = METHODS["default"].open(bundle)([query])
    ids, scores = found.ranking.ids, found.ranking.scores
    vectors = VectorIndex.read(bundle.path("index/joint.faiss")).vectors_ND.astype(np.float64)
    near, far = (vectors[ids] @ vectors[list(seeds)].T for seeds in (query.positive, query.negative))
    hubs = hubness[ids]
    least = -0.5 * np.log(np.exp(-near / 0.5).mean(axis=1))
    lost = 0.05 * np.log1p(np.exp((far.mean(axis=1) - near.mean(axis=1)) / 0.05))
    np.testing.assert_allclose(scores, least - 0.6 * hubs - lost, atol=1e-5)
    gains = np.column_stack([near, -far, -hubs])
    ahead = (gains[:, None] >= gains[None]).all(axis=2) & ~np.eye(len(ids), dtype=bool)
    first, second = np.nonzero(ahead)
    assert len(first) > 30
    assert (first < second).all()
