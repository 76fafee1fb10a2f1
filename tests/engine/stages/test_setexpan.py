"""SetExpan against a plain computation of its paper's equations, on random counts."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from engine.errors import BundleError
from engine.query import NewEntity, Query
from engine.retrieval.rank_ensemble import RankEnsemble, draw_samples
from engine.stages.base import Pipeline
from engine.stages.setexpan import SetExpan
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors, random_skipgrams

N = 60
Weights = list[dict[int, float]]
"""For each entity the weight of every skip-gram that it was met with."""


def plain_weights(seed: int) -> Weights:
    skipgrams = random_skipgrams(N, seed)
    dense = skipgrams.matrix(skipgrams.counts_P.astype(float)).toarray()
    totals, vocabulary = dense.sum(axis=0), sum(row.any() for row in dense)
    return [
        {c: math.log(1 + n) * (math.log(vocabulary) - math.log(totals[c])) for c, n in enumerate(row) if n}
        for row in dense.tolist()
    ]


def plain_similarity(one: dict[int, float], other: dict[int, float], features: set[int]) -> float:
    """Equation 2."""
    pairs = [(one.get(c, 0), other.get(c, 0)) for c in features]
    most = sum(max(pair) for pair in pairs)
    return sum(min(pair) for pair in pairs) / most if most else 0.0


def plain_selection(weights: Weights, members: list[int], size: int, least: int, most: int) -> list[int]:
    met = {c: [e for e in range(N) if c in weights[e]] for row in weights for c in row}
    scores = {
        c: sum(weights[e].get(c, 0) for e in members) for c, own in met.items() if least <= len(own) <= most
    }
    return sorted((c for c, score in scores.items() if score > 0), key=lambda c: (-scores[c], c))[:size]


def plain_ranks(
    weights: Weights, members: list[int], samples: list[set[int]], out: set[int], kept: int
) -> dict[int, float]:
    """The sums of reciprocal ranks over the ensemble."""
    sums: dict[int, float] = {}
    for features in samples:
        candidates = [e for e in range(N) if e not in out and features & weights[e].keys()]
        means = {
            e: round(
                sum(plain_similarity(weights[e], weights[s], features) for s in members) / len(members), 12
            )
            for e in candidates
        }
        ranking = sorted(candidates, key=lambda e: (-means[e], e))[:kept]
        for rank, entity in enumerate(ranking, 1):
            sums[entity] = sums.get(entity, 0) + 1 / rank
    return sums


def plain_setexpan(weights: Weights, query: Query, stage: SetExpan) -> list[int]:
    random = np.random.default_rng(stage.seed)
    members, found = list(query.positive), list[int]()
    for _ in range(stage.iterations):
        chosen = plain_selection(weights, members, stage.features, stage.least, stage.most)
        if not chosen:
            break
        drawn = draw_samples(stage.samples, len(chosen), stage.share, random)
        samples = [{c for c, has in zip(chosen, row, strict=True) if has} for row in drawn.tolist()]
        sums = plain_ranks(weights, members, samples, {*members, *query.seeds}, stage.places)
        good = [e for e, total in sums.items() if total >= stage.samples / stage.rank - 1e-9]
        good.sort(key=lambda e: (-round(sums[e], 12), e))
        if not good:
            break
        found, members = found + good, members + good
        if len(found) >= max(stage.k, query.top_k):
            break
    return found[: max(stage.k, query.top_k)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("setexpan"), n=N, d=8)


@pytest.mark.parametrize("seed", range(3))
def test_similarities_and_selection_are_those_of_the_equations(seed: int) -> None:
    weights, random = plain_weights(seed), np.random.default_rng(seed)
    ensemble = RankEnsemble(random_skipgrams(N, seed), 25, (3, 8))
    members = random.choice(N, 4, replace=False).tolist()
    chosen = ensemble.select(members)
    assert chosen.tolist() == plain_selection(weights, members, 25, 3, 8) != []
    samples = draw_samples(5, len(chosen), 0.6, random)
    ids, means, has = ensemble.similarities(members, chosen, samples)
    for column, row in enumerate(samples):
        features = set(chosen[row].tolist())
        for place, entity in enumerate(ids.tolist()):
            expected = sum(plain_similarity(weights[entity], weights[m], features) for m in members) / 4
            assert means[place, column] == pytest.approx(expected, abs=1e-9)
            assert has[place, column] == bool(features & weights[entity].keys())


@pytest.mark.parametrize(
    "stage",
    [
        SetExpan(features=30, samples=7, rank=3, least=2),
        SetExpan(features=10, samples=4, share=1, places=5, iterations=2),
        SetExpan(features=40, samples=9, rank=20, k=9, seed=3),
        SetExpan(most=1),
    ],
    ids=str,
)
def test_a_whole_expansion_is_that_of_a_plain_program(stage: SetExpan, bundle: Bundle) -> None:
    weights, run = plain_weights(0), Pipeline((stage,)).open(bundle)
    queries = [
        Query("a", (1, 2, 3), (4,), top_k=5),
        Query("b", (7, 30), top_k=20),
        Query("c", (11,), top_k=3),
    ]
    lengths = 0
    for query, (found,) in ((q, run([q])) for q in queries):
        expected = plain_setexpan(weights, query, stage)
        assert found.ranking.ids.tolist() == expected[: query.top_k]
        assert (np.diff(found.ranking.scores) <= 0).all()
        lengths += len(expected)
    assert lengths > 0 or stage.most == 1
    together = [e.ranking.ids.tolist() for e in run(queries)]
    assert together == [run([q])[0].ranking.ids.tolist() for q in queries], "no answer depends on another"


def test_runners_up_follow_where_that_is_wanted(bundle: Bundle) -> None:
    query = Query("a", (1, 2, 3), (4,), top_k=50)
    (short,), (long,) = (Pipeline((SetExpan(rank=1.5, fill=f),)).open(bundle)([query]) for f in (False, True))
    assert len(long.ranking) > len(short.ranking)
    assert long.ranking.ids[: len(short.ranking)].tolist() == short.ranking.ids.tolist()
    assert not set(long.ranking.ids.tolist()) & set(query.seeds)
    assert len(set(long.ranking.ids.tolist())) == len(long.ranking)
    assert (np.diff(long.ranking.scores) <= 0).all()


def test_only_candidates_and_what_fulfils_the_filters_is_taken(bundle: Bundle) -> None:
    run = Pipeline((SetExpan(least=1, rank=20),)).open(bundle)
    (free,) = run([Query("a", (1, 2), top_k=30)])
    (odd,) = run([Query("a", (1, 2), top_k=30, filters=(("parity", ("odd",)),))])
    assert {i % 2 for i in free.ranking.ids.tolist()} == {0, 1}
    assert {i % 2 for i in odd.ranking.ids.tolist()} == {1}


def test_a_seed_without_contexts_is_named(bundle: Bundle) -> None:
    new = (NewEntity("Atlantis", ("Atlantis sank.",)),)
    run = Pipeline((SetExpan(),)).open(bundle)
    (alone,), (beside,) = (run([Query("n", seeds, new=new)]) for seeds in ((-1,), (-1, 5)))
    assert len(alone.ranking) == 0
    assert alone.degraded == beside.degraded
    assert "positive seed 'Atlantis' has no context that another entity has too" in alone.degraded[0]


def test_a_bundle_without_skipgrams_says_which_command_makes_them(tmp_path: Path) -> None:
    bare = publish_vectors(Workspace.open(tmp_path), ["a", "b"], {"mask": np.eye(2)})
    with pytest.raises(BundleError, match=r"holds no 'skipgrams'; run `seedset build-index` again"):
        SetExpan().open(bare)
