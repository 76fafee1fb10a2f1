"""Strategies and context pairs: the documented formula by loops, and what must hold of the order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, log
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.methods import METHODS
from engine.query import Expansion, Query
from engine.retrieval.index import unit
from engine.stages.base import Pipeline
from engine.stages.compare import Compare, Rule
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import publish_vectors

N, D = 40, 6
ABSENT = 39
"""An entity without a vector."""

RULES: tuple[Rule, ...] = ("mean", "best", "sum")


def made() -> np.ndarray:
    """Return unit vectors; each of the last ten but one is that of an entity before it: ties."""
    vectors = unit(np.random.default_rng(3).normal(size=(N, D)))
    vectors[29:ABSENT] = vectors[10:20]
    vectors[ABSENT] = 0
    return vectors


VECTORS = made()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    workspace = Workspace.open(tmp_path_factory.mktemp("compare"))
    return publish_vectors(workspace, [f"entity {i}" for i in range(N)], {"joint": VECTORS})


def answer(bundle: Bundle, rule: Rule, query: Query, **given: Any) -> Expansion:
    (found,) = Pipeline((Compare(rule=rule, **given),)).open(bundle)([query], strict=True)
    return found


def plain(rule: Rule, query: Query, vectors: np.ndarray, i: int) -> float:
    """Return the documented score of an entity, by loops."""
    weights: Mapping[int, float] = dict(query.weights)

    def cosine(seed: int) -> float:
        return float(vectors[i].astype(float) @ vectors[seed].astype(float))

    def says(seeds: tuple[int, ...]) -> float:
        seeds = tuple(seed for seed in seeds if seed != ABSENT)
        if not seeds:
            return 0
        own = [weights.get(seed, 1) for seed in seeds]
        shares = [w / max(own) for w in own]
        if rule == "best":
            return max(cosine(s) + 0.1 * log(w / max(own)) for s, w in zip(seeds, own, strict=True))
        if rule == "sum":
            return sum(w / (1 + exp(-cosine(s) / 0.1)) for s, w in zip(seeds, shares, strict=True))
        return sum(w * cosine(s) for s, w in zip(seeds, shares, strict=True)) / sum(shares)

    pairs = [(this, that) for this, that in query.context if ABSENT not in (this, that)]
    taken = sum(0.05 * log(1 + exp(-(cosine(this) - cosine(that)) / 0.05)) for this, that in pairs)
    return says(query.positive) - says(query.negative) - taken


QUERIES = st.builds(
    lambda ids, p, n, c, w: Query(
        "q",
        tuple(ids[:p]),
        tuple(ids[p : p + n]),
        top_k=N,
        context=tuple(zip(ids[5 : 5 + c], ids[8 : 8 + c], strict=True)) or (() if p + n else ((0, 1),)),
        weights=tuple(zip(ids[: p + n], w, strict=False)),
    ),
    st.permutations(range(N)),
    st.integers(0, 3),
    st.integers(0, 2),
    st.integers(0, 2),
    st.lists(st.sampled_from([0.2, 1.0, 1.0, 5.0]), min_size=5, max_size=5),
)


@given(st.sampled_from(RULES), QUERIES)
@settings(max_examples=80)
def test_scores_are_the_documented_formula_and_ties_are_by_id(
    bundle: Bundle, rule: Rule, query: Query
) -> None:
    found = answer(bundle, rule, query)
    usable = set(query.positive or query.negative) - {ABSENT}  # a pair that is of no use counts as none
    usable |= {1 for pair in query.context if ABSENT not in pair and not query.positive}
    if not usable:
        assert len(found.ranking) == 0
        return
    ids, scores = found.ranking.ids.tolist(), found.ranking.scores.tolist()
    assert set(ids) == set(range(N)) - {*query.kept_out, ABSENT}
    np.testing.assert_allclose(scores, [plain(rule, query, VECTORS, i) for i in ids], atol=2e-6)
    assert [(-s, i) for s, i in zip(scores, ids, strict=True)] == sorted(
        (-s, i) for s, i in zip(scores, ids, strict=True)
    )
    assert bool(found.degraded) == (ABSENT in query.kept_out)
    parts = found.ranking.evidence
    total = parts.get("positive", 0) - parts.get("negative", 0) + parts.get("context", 0)
    np.testing.assert_allclose(scores, total, atol=2e-6)


@given(st.sampled_from(RULES), st.integers(0, 2**32 - 1), st.integers(0, 5), st.floats(0.01, 0.3))
@settings(max_examples=40)
def test_nearer_is_never_lower_and_nearer_to_what_is_not_wanted_never_higher(
    tmp_path_factory: pytest.TempPathFactory, rule: Rule, seed: int, axis: int, step: float
) -> None:
    """Entity 9 is entity 8 but for its cosine to one seed, or one member of a pair."""
    random = np.random.default_rng(seed)
    vectors = np.zeros((10, 9))
    vectors[:6, :6] = np.eye(6)
    cosines = random.uniform(-0.3, 0.3, (10, 6))
    cosines[9] = cosines[8]
    cosines[9, axis] += step
    vectors[6:, :6] = cosines[6:]
    rest = np.sqrt(1 - (vectors[6:, :6] ** 2).sum(axis=1))
    vectors[6:, 6] = rest
    bundle = publish_vectors(
        Workspace.open(tmp_path_factory.mktemp("near")), [str(i) for i in range(10)], {"joint": vectors}
    )
    weights = ((0, float(random.uniform(0.1, 9))), (2, float(random.uniform(0.1, 9))))
    query = Query("q", (0, 1), (2, 3), context=((4, 5),), weights=weights)
    ranking = answer(bundle, rule, query).ranking
    score = dict(zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True))
    wanted = axis in (0, 1, 4)
    assert score[9] >= score[8] - 1e-6 if wanted else score[9] <= score[8] + 1e-6
    if rule != "best" or axis > 3:
        assert score[9] != score[8]


@pytest.mark.parametrize("rule", RULES)
def test_pairs_change_the_answer_and_their_weight_can_rule_it(bundle: Bundle, rule: Rule) -> None:
    query = Query("q", (0, 1), (2,), top_k=N)
    plain, paired = (answer(bundle, rule, replace(query, context=c)).ranking for c in ((), ((5, 6),)))
    assert plain.ids.tolist() != paired.ids.tolist()
    assert not {5, 6} & {*paired.ids.tolist()}
    strict = answer(bundle, rule, replace(query, context=((5, 6),)), context_weight=1000).ranking
    nearer = VECTORS[strict.ids] @ (VECTORS[5] - VECTORS[6])
    assert np.flatnonzero(nearer > 0.1).max() < np.flatnonzero(nearer < -0.1).min()
    none = answer(bundle, rule, replace(query, context=((5, 6),)), context_weight=0).ranking
    assert none.scores.tolist() == [
        s for i, s in zip(plain.ids, plain.scores, strict=True) if i not in (5, 6)
    ]


@pytest.mark.parametrize("rule", RULES)
def test_an_answer_is_the_same_alone_and_cut(bundle: Bundle, rule: Rule) -> None:
    """What is recalled is exact for the mean, and for the best without negative seeds."""
    queries = [
        Query("a", (0, 1), (2,), top_k=5),
        Query("b", (), (3,), top_k=7),
        Query("c", (4, 5), weights=((4, 3.0),), exclude=(7, 8), top_k=3),
        Query("d", (), context=((9, 10),), top_k=4),
    ]
    run = METHODS[rule].open(bundle)
    together = run(queries, strict=True)
    for query, one in zip(queries, together, strict=True):
        (alone,) = run([query], strict=True)
        assert one.ranking.ids.tolist() == alone.ranking.ids.tolist()
        assert one.ranking.scores.tolist() == alone.ranking.scores.tolist()
    for query in (queries[:2] if rule == "mean" else []) + (queries[2:3] if rule != "sum" else []):
        few = answer(bundle, rule, query, k=1).ranking.head(query.top_k)
        whole = answer(bundle, rule, query).ranking.head(query.top_k)
        assert few.ids.tolist() == whole.ids.tolist()


def test_a_list_that_is_there_is_ranked_alone(bundle: Bundle) -> None:
    query = Query("q", (0, 1), top_k=6)
    (recalled,) = Pipeline((Retrieve(view="joint", k=6),)).open(bundle)([query])
    (ranked,) = (Retrieve(view="joint", k=6) >> Compare(rule="best")).open(bundle)([query])
    assert set(ranked.ranking.ids.tolist()) == set(recalled.ranking.ids.tolist())
