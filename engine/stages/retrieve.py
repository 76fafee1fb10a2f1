"""Recall the entities nearest to the positive seeds (RetExpan, section 5.1, equation 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

import numpy as np
from pydantic import Field

from engine.catalogue import open_catalogue
from engine.errors import BundleError, QueryError
from engine.filters import Filters
from engine.query import Expansion, Ids, Query, Ranking, Scores
from engine.retrieval.index import (
    Index,
    SearchResult,
    Vectors,
    hubness_file,
    index_file,
    mean_of,
    seed_vectors,
)
from engine.retrieval.opening import open_index
from engine.retrieval.view_weights import open_view_weights
from engine.stages.base import Stage, Worker, by_settings
from engine.storage.bundle import Bundle
from engine.vocabulary import read_removed

WHERES = 16
"""Filters whose entities are cached: four bytes an entity each, at most."""

Matching = Callable[[Filters], Ids | None]


class Retrieve(Stage):
    """Keep the k entities with the highest mean cosine to the positive seeds; seeds are never returned.

    Negative seeds lower no entity here, so that recall is whole. A query that wants more than k gets it.
    After a stage that recalled candidates only these are ranked (the interaction of table 9). Where a
    query has filters, only entities that fulfil them are ranked, so that it gets as many.
    ``hubness`` is the share of an entity's mean cosine to its own neighbours that is taken off, so
    that entities that are near to everything do not come up for every query. ``seed_view``, a view of
    as many dimensions, is where the vectors of the seeds are taken from; none: from the same view. (The
    modalities of seeds and candidates are taken away apart in MultiExpan's table 5.)
    ``exact`` scores every entity, also in a view with codes (:mod:`engine.retrieval.codes`).
    ``view_weights`` is the strength with which the views within the joint one are weighed by how well they
    tell the seeds of both kinds apart (:mod:`engine.retrieval.view_weights`); where a bundle's joint view has
    none to weigh, they count alike, with a note.
    """

    k: int = Field(default=200, ge=1)
    view: str = "mask"
    seed_view: str | None = None
    hubness: float = Field(default=0, ge=0)
    exact: bool = False
    view_weights: float = Field(default=0, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {"k": (1, 2_000), "hubness": (0, 2)}

    def needs(self) -> tuple[str, ...]:
        """Name the views' indexes, and the hubness if that is used."""
        views = dict.fromkeys((self.view, self.seed_view or self.view))
        return (*map(index_file, views), *([hubness_file(self.view)] if self.hubness else []))

    def open(self, bundle: Bundle) -> Worker:
        """Read the views' indexes.

        Raises:
            BundleError: the bundle lacks one, or they are of different dimensions.
        """
        index = open_index(bundle, self.view)
        seed_view = self.seed_view or self.view
        seed_index = open_index(bundle, seed_view)
        if seed_view != self.view:
            _check_dimensions(bundle, {self.view: index, seed_view: seed_index})
        if self.hubness:
            bundle.path(hubness_file(self.view))
        weights, why_not = open_view_weights(bundle, index, self.view, self.view_weights)
        has_hubness = hubness_file(self.view) in bundle.manifest.files
        matching = matching_of(bundle)

        def run(own: Retrieve, expansions: list[Expansion]) -> list[Expansion]:
            if not expansions:
                return []
            if own.hubness and not has_hubness:
                raise QueryError(f"hubness: the bundle has none of the view {own.view!r}; leave it at 0")
            queries = [e.query for e in expansions]
            seeds = seed_vectors(seed_index, seed_view, [(q, q.positive) for q in queries])
            means_QD = np.stack([mean_of(vectors) for vectors in seeds])
            if weights:
                negative = seed_vectors(seed_index, seed_view, [(q, q.negative) for q in queries])
                means_QD *= np.stack([weights.factors(*own) for own in zip(seeds, negative, strict=True)])
            found = index.search(
                means_QD,
                max(own.k, *(q.wanted for q in queries)),
                [[i for i in q.kept_out if i >= 0] for q in queries],
                [allowed(e, bool(v.any()), matching) for e, v in zip(expansions, seeds, strict=True)],
                own.hubness,
                own.exact,
            )
            return [
                replace(
                    e,
                    ranking=_ranking(e.ranking, one).head(max(own.k, e.query.wanted)),
                    degraded=e.degraded
                    + ((f"{self.name}: {why_not}",) if why_not else ())
                    + unused(
                        self.name,
                        e.query,
                        "positive",
                        e.query.positive,
                        vectors,
                        MADE_OF.get(seed_view, "sentence"),
                    ),
                )
                for e, vectors, one in zip(expansions, seeds, found, strict=True)
            ]

        return lambda expansions: by_settings(self, expansions, run)


MADE_OF: Mapping[str, str] = {"description": "description", "image": "image"}
"""What an entity without a vector lacks, of views that are not made of its sentences."""


def _check_dimensions(bundle: Bundle, views: Mapping[str, Index]) -> None:
    sizes = {view: index.vectors_of([]).shape[1] for view, index in views.items()}
    if len(set(sizes.values())) > 1:
        given = " and ".join(f"{view!r} of {size}" for view, size in sizes.items())
        raise BundleError(
            f"bundle {bundle.id}: seeds and candidates need views of as many dimensions, not {given}"
        )


def matching_of(bundle: Bundle) -> Matching:
    """Return a cached function that finds the entities that are there and fulfil filters; None: all do."""

    @lru_cache(WHERES)
    def matching(filters: Filters) -> Ids | None:
        # The catalogue takes memory, and is needed for filters alone, or where entities were removed.
        if not filters and not len(read_removed(bundle.path("entities.parquet"))):
            return None
        return open_catalogue(bundle).matching(filters)

    return matching


def allowed(expansion: Expansion, has_seeds: bool, matching: Matching) -> Ids | None:
    """Return which entities may be ranked, ascending; None: all. Without a usable seed there are none."""
    if not has_seeds:
        return np.empty(0, np.int32)
    given = np.sort(expansion.ranking.ids) if len(expansion.ranking) else None
    fulfil = matching(expansion.query.filters)
    if fulfil is None:
        return given
    return fulfil if given is None else given[np.isin(given, fulfil)]


def _ranking(given: Ranking, found: SearchResult) -> Ranking:
    """Return what was found, with the evidence of the stage that recalled it."""
    return Ranking(found.ids, found.scores, {**evidence_of(given, found.ids), "positive": found.products})


def evidence_of(given: Ranking, ids: Ids) -> dict[str, Scores]:
    """Return the evidence that a ranking gives for some of its entities; of no ranking there is none."""
    if not len(given):
        return {}
    by_id = np.argsort(given.ids)
    return dict(given.take(by_id[np.searchsorted(given.ids, ids, sorter=by_id)]).evidence)


def unused(
    stage: str,
    query: Query,
    kind: str,
    seeds: Sequence[int],
    vectors_MD: Vectors,
    lacks: str = "sentence",
) -> tuple[str, ...]:
    """Return a note for each seed that has no vector, for want of what it ``lacks``: a stage left it out."""
    notes = []
    for seed, present in zip(seeds, np.any(vectors_MD, axis=1).tolist(), strict=True):
        if not present:
            given = seed if seed >= 0 else repr(query.new[-1 - seed].name)
            notes.append(f"{stage}: {kind} seed {given} has no {lacks} and was not used")
    return tuple(notes)
