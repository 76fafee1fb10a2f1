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
    """

    k: int = Field(default=200, ge=1)
    view: str = "mask"

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = VectorIndex.read(bundle.path(f"index/{self.view}.faiss"))

        def run(expansions: list[Expansion]) -> list[Expansion]:
            if not expansions:
                return []
            queries = [e.query for e in expansions]
            means_QD = np.stack([index.mean_of(q.positive) for q in queries])
            k = max(self.k, *(q.top_k for q in queries))
            found = index.search(means_QD, k, [q.seeds for q in queries])
            return [
                _answer(e, index, Ranking(ids, scores, {"positive": scores}), max(self.k, e.query.top_k))
                for e, (ids, scores) in zip(expansions, found, strict=True)
            ]

        return run


def _answer(expansion: Expansion, index: VectorIndex, ranking: Ranking, k: int) -> Expansion:
    """Attach a ranking, and say which seeds could not be used."""
    unusable = [i for i in expansion.query.positive if not index.has_vector(i)]
    notes = tuple(f"positive seed {i} has no sentence and was not used" for i in unusable)
    if len(unusable) == len(expansion.query.positive):
        ranking = Ranking.empty()
    return replace(expansion, ranking=ranking.head(k), degraded=expansion.degraded + notes)
