"""Recall: the entities nearest to the positive seeds (RetExpan, section 5.1, equation 5)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from pydantic import Field

from engine.bundle import Bundle
from engine.query import Expansion, Ranking
from engine.retrieval.index import VectorIndex
from engine.stages.base import Stage, Worker


class Retrieve(Stage):
    """Keep the k entities with the highest mean cosine to the positive seeds; seeds never come back.

    Negative seeds are not used here, so that recall is whole. A query that wants more than k gets it.
    After a stage that recalled candidates only these are ranked (the interaction of table 9).
    ``hubness`` is the share of an entity's mean cosine to its own neighbours that is taken off, so
    that entities that are near to everything do not come up for every query.
    """

    k: int = Field(default=200, ge=1)
    view: str = "mask"
    hubness: float = Field(default=0, ge=0)

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index, and its hubness if that is used."""
        index = bundle.once(f"index/{self.view}.faiss", VectorIndex.read)
        penalty = None
        if self.hubness:
            hubs = np.load(bundle.path(f"index/{self.view}.hubness.npy"), allow_pickle=False)
            penalty = np.asarray(self.hubness * hubs, np.float32)

        def recall(expansions: list[Expansion]) -> list[Expansion]:
            queries = [e.query for e in expansions]
            means_QD = np.stack([index.mean_of(q.positive) for q in queries])
            k = max(self.k, *(q.top_k for q in queries))
            found = index.search(means_QD, k, [q.seeds for q in queries], penalty)
            done = []
            for e, mean_D, (ids, scores) in zip(expansions, means_QD, found, strict=True):
                kept = max(self.k, e.query.top_k)
                ids, scores = ids[:kept], scores[:kept]
                evidence = {"positive": index.similarity(ids, mean_D)}
                done.append(_answer(e, index, Ranking(ids, scores, evidence)))
            return done

        def rank(expansion: Expansion) -> Expansion:
            given = expansion.ranking
            ranking = given.take(np.flatnonzero(index.has_vectors(given.ids)))
            positive = index.similarity(ranking.ids, index.mean_of(expansion.query.positive))
            scores = positive if penalty is None else positive - penalty[ranking.ids]
            order = np.lexsort((ranking.ids, -scores))[: max(self.k, expansion.query.top_k)]
            ranking = replace(ranking.with_evidence(positive=positive), scores=scores).take(order)
            return _answer(expansion, index, ranking)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            new = [e for e in expansions if not len(e.ranking)]
            recalled = iter(recall(new) if new else [])
            return [rank(e) if len(e.ranking) else next(recalled) for e in expansions]

        return run


def _answer(expansion: Expansion, index: VectorIndex, ranking: Ranking) -> Expansion:
    """Attach a ranking, and say which seeds could not be used."""
    unusable = [i for i in expansion.query.positive if not index.has_vector(i)]
    notes = tuple(f"positive seed {i} has no sentence and was not used" for i in unusable)
    if len(unusable) == len(expansion.query.positive):
        ranking = Ranking.empty()
    return replace(expansion, ranking=ranking, degraded=expansion.degraded + notes)
