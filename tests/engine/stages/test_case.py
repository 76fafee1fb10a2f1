"""CaSE against a plain computation of its authors' score, on random counts and vectors."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.query import Query
from engine.retrieval.index import VectorIndex
from engine.stages.base import Pipeline
from engine.stages.case import CaSE
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle, random_skipgrams

N = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("case"), n=N, d=8)


def plain_scores(stage: CaSE, seeds: tuple[int, ...], vectors: np.ndarray) -> dict[int, float]:
    """Walk over the skip-grams of every seed, and over the entities of these."""
    skipgrams = random_skipgrams(N)
    counts = skipgrams.matrix(skipgrams.counts_P.astype(float)).toarray()
    scores: dict[int, float] = {}
    for context in counts.T.tolist():
        entities = [e for e, n in enumerate(context) if n]
        if len(entities) < stage.entities or sum(context) < stage.mentions:
            continue
        first = sorted(entities, key=lambda e: (-context[e], e))[: stage.places]
        for seed in seeds:
            if not context[seed]:
                continue
            for entity in first:
                near = float(vectors[entity] @ vectors[seed]) if stage.view else 1.0
                gain = near**stage.power * context[seed] / sum(context) * math.sqrt(context[entity])
                scores[entity] = scores.get(entity, 0) + gain
    return scores


@pytest.mark.parametrize(
    "stage",
    [
        CaSE(entities=3, mentions=6),
        CaSE(entities=2, mentions=1, places=2, power=1, view="lexical"),
        CaSE(entities=4, mentions=9, view=None),
        CaSE(entities=100),
    ],
    ids=str,
)
def test_scores_are_those_of_a_plain_walk(stage: CaSE, bundle: Bundle) -> None:
    vectors = VectorIndex.read(bundle.path(f"index/{stage.view or 'mask'}.faiss")).vectors_ND.astype(float)
    run = Pipeline((stage,)).open(bundle)
    for seeds, negative in (((1, 2, 3), (4,)), ((50,), ())):
        (found,) = run([Query("q", seeds, negative)])
        expected = plain_scores(stage, seeds, vectors)
        expected = {e: s for e, s in expected.items() if e not in (*seeds, *negative)}
        assert set(found.ranking.ids.tolist()) == set(expected)
        assert bool(expected) == (stage.entities < 100)
        for entity, score in zip(found.ranking.ids.tolist(), found.ranking.scores.tolist(), strict=True):
            assert score == pytest.approx(expected[entity], rel=1e-4, abs=1e-6)
        assert (np.diff(found.ranking.scores) <= 0).all()


def test_queries_do_not_change_each_other_and_filters_hold(bundle: Bundle) -> None:
    run = Pipeline((CaSE(entities=3, mentions=6),)).open(bundle)
    odd = Query("odd", (1, 2), filters=(("parity", ("odd",)),), top_k=9)
    queries = [Query("a", (1, 2, 3), top_k=4), odd, Query("b", (9,))]
    together = run(queries)
    for query, found in zip(queries, together, strict=True):
        (alone,) = run([query])
        assert alone.ranking.ids.tolist() == found.ranking.ids.tolist() != []
        np.testing.assert_array_equal(alone.ranking.scores, found.ranking.scores)
    assert {i % 2 for i in together[1].ranking.ids.tolist()} == {1}
    assert len(together[0].ranking) == 4
