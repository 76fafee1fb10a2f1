"""Recall: the entities nearest to the positive seeds (RetExpan, section 5.1, equation 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from pydantic import Field

from engine.bundle import Bundle
from engine.catalogue import open_catalogue
from engine.query import Expansion, Ids, Query, Ranking, Where
from engine.retrieval.index import Found, Vectors, hubness_file, index_file, mean_of, open_index, seed_vectors
from engine.stages.base import Stage, Worker

WHERES = 16
"""Conditions whose entities are remembered: four bytes an entity each, at most."""

Matching = Callable[[Where], Ids]


class Retrieve(Stage):
    """Keep the k entities with the highest mean cosine to the positive seeds; seeds never come back.

    Negative seeds are not used here, so that recall is whole. A query that wants more than k gets it.
    After a stage that recalled candidates only these are ranked (the interaction of table 9). Where a
    query has conditions, only entities that fulfil them are ranked, so that it gets as many.
    ``hubness`` is the share of an entity's mean cosine to its own neighbours that is taken off, so
    that entities that are near to everything do not come up for every query.
    """

    k: int = Field(default=200, ge=1)
    view: str = "mask"
    hubness: float = Field(default=0, ge=0)

    def needs(self) -> tuple[str, ...]:
        """Name the view's index, and its hubness if that is used."""
        return (index_file(self.view), *([hubness_file(self.view)] if self.hubness else []))

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = open_index(bundle, self.view)
        if self.hubness:
            bundle.path(hubness_file(self.view))

        @lru_cache(WHERES)
        def matching(where: Where) -> Ids:
            return open_catalogue(bundle).matching(where)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            if not expansions:
                return []
            queries = [e.query for e in expansions]
            seeds = seed_vectors(index, self.view, [(q, q.positive) for q in queries])
            found = index.search(
                np.stack([mean_of(own) for own in seeds]),
                max(self.k, *(q.top_k for q in queries)),
                [[i for i in q.seeds if i >= 0] for q in queries],
                [_allowed(e, own, matching) for e, own in zip(expansions, seeds, strict=True)],
                self.hubness,
            )
            return [
                replace(
                    e,
                    ranking=_ranking(e.ranking, one).head(max(self.k, e.query.top_k)),
                    degraded=e.degraded + unused(self.name, e.query, "positive", e.query.positive, own),
                )
                for e, own, one in zip(expansions, seeds, found, strict=True)
            ]

        return run


def _allowed(expansion: Expansion, seeds_MD: Vectors, matching: Matching) -> Ids | None:
    """Return which entities may be ranked; None: all. Without a seed that has a vector there are none."""
    if not seeds_MD.any():
        return np.empty(0, np.int32)
    given = np.sort(expansion.ranking.ids) if len(expansion.ranking) else None
    if not expansion.query.where:
        return given
    fulfil = matching(expansion.query.where)
    return fulfil if given is None else given[np.isin(given, fulfil)]


def _ranking(given: Ranking, found: Found) -> Ranking:
    """Return what was found, with the evidence of the stage that recalled it."""
    columns = {}
    if len(given):
        by_id = np.argsort(given.ids)
        columns = dict(given.take(by_id[np.searchsorted(given.ids, found.ids, sorter=by_id)]).evidence)
    return Ranking(found.ids, found.scores, {**columns, "positive": found.products})


def unused(stage: str, query: Query, kind: str, seeds: Sequence[int], vectors_MD: Vectors) -> tuple[str, ...]:
    """Return a note for each seed that has no vector, and so was left out by a stage."""
    notes = []
    for seed, present in zip(seeds, np.any(vectors_MD, axis=1).tolist(), strict=True):
        if not present:
            given = seed if seed >= 0 else repr(query.new[-1 - seed].name)
            notes.append(f"{stage}: {kind} seed {given} has no sentence and was not used")
    return tuple(notes)
