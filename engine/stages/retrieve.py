"""Recall the entities nearest to the positive seeds (RetExpan, section 5.1, equation 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from engine.catalogue.opening import open_catalogue
from engine.errors import BundleError, QueryError
from engine.filters import Filters
from engine.overlay.state import overlay_of
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
from engine.retrieval.view_weights import ViewWeights, open_view_weights
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, by_settings
from engine.storage.bundle import Bundle
from engine.vocabulary import read_removed

Matching = Callable[[Filters], Ids | None]


class Retrieve(Stage):
    """Keep the k entities with the highest mean cosine to the positive seeds; seeds are never returned.

    Negative seeds are not used here, so that recall is whole; of a query that has no others, the score is the
    negative of the mean cosine to them, without hubness, and every entity is scored. Means are by the weights
    of the seeds. A query that wants more than k gets it.
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

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES - {QueryFeature.CONTEXT}

    k: int = Field(default=200, ge=1)
    view: str = "mask"
    seed_view: str | None = None
    hubness: float = Field(default=0, ge=0)
    exact: bool = False
    view_weights: float = Field(default=0, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {"k": (1, 2_000), "hubness": (0, 2)}

    @property
    def seed_views(self) -> tuple[str, ...]:
        """The view in which seeds are read."""
        return (self.seed_view or self.view,)

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
        opened = _Opened(index, seed_index, matching_of(bundle, overlaid=True), weights, why_not)
        has_hubness = hubness_file(self.view) in bundle.manifest.files

        def run(own: Retrieve, expansions: list[Expansion]) -> list[Expansion]:
            if own.hubness and not has_hubness:
                raise QueryError(f"hubness: the bundle has none of the view {own.view!r}; leave it at 0")
            done: dict[int, Expansion] = {}
            for side in ("positive", "negative"):
                places = [
                    i for i, e in enumerate(expansions) if bool(e.query.positive) == (side == "positive")
                ]
                some = [expansions[place] for place in places]
                if some:
                    done |= zip(places, own._recalled(opened, some, side), strict=True)
            return [done[place] for place in range(len(expansions))]

        return lambda expansions: by_settings(self, expansions, run)

    def _recalled(
        self, opened: _Opened, expansions: Sequence[Expansion], side: Literal["positive", "negative"]
    ) -> list[Expansion]:
        """Return what is nearest to the positive seeds, or farthest from the negative ones."""
        away, seed_view = side == "negative", self.seed_view or self.view
        queries = [e.query for e in expansions]
        asked = [q.negative if away else q.positive for q in queries]
        seeds = seed_vectors(opened.seed_index, seed_view, list(zip(queries, asked, strict=True)))
        means = [mean_of(own, q.weights_of(ids)) for q, ids, own in zip(queries, asked, seeds, strict=True)]
        if opened.weights and not away:
            others = seed_vectors(opened.seed_index, seed_view, [(q, q.negative) for q in queries])
            factors = map(opened.weights.factors, seeds, others)
            means = [mean * own for mean, own in zip(means, factors, strict=True)]
        found = opened.index.search(
            -np.stack(means) if away else np.stack(means),
            max(self.k, *(q.wanted for q in queries)),
            [[i for i in q.kept_out if i >= 0] for q in queries],
            [allowed(e, bool(v.any()), opened.matching) for e, v in zip(expansions, seeds, strict=True)],
            0 if away else self.hubness,
            self.exact or away,  # codes are made for what is near
        )
        lacks = MADE_OF.get(seed_view, "sentence")
        note = (f"{self.name}: {opened.why_not}",) if opened.why_not else ()
        return [
            replace(
                e,
                ranking=_ranking(e.ranking, one, side).head(max(self.k, e.query.wanted)),
                degraded=e.degraded + note + unused(self.name, e.query, side, ids, own, lacks),
            )
            for e, ids, own, one in zip(expansions, asked, seeds, found, strict=True)
        ]


@dataclass(frozen=True)
class _Opened:
    """The parts of a bundle that a recall reads; ``why_not`` says why there are no weights of views."""

    index: Index
    seed_index: Index
    matching: Matching
    weights: ViewWeights | None
    why_not: str


MADE_OF: Mapping[str, str] = {"description": "description", "image": "image"}
"""What an entity without a vector lacks, of views that are not made of its sentences."""


def _check_dimensions(bundle: Bundle, views: Mapping[str, Index]) -> None:
    sizes = {view: index.vectors_of([]).shape[1] for view, index in views.items()}
    if len(set(sizes.values())) > 1:
        given = " and ".join(f"{view!r} of {size}" for view, size in sizes.items())
        raise BundleError(
            f"bundle {bundle.id}: seeds and candidates need views of as many dimensions, not {given}"
        )


def matching_of(bundle: Bundle, overlaid: bool = False) -> Matching:
    """Return a function that finds the entities that are there and fulfil filters; None: all do.

    Args:
        bundle: that holds them. Its catalogue keeps the last answers.
        overlaid: with those that an overlay has added.
    """
    layer = overlay_of(bundle)

    @lru_cache(1)
    def all_are_there() -> bool:
        return not len(read_removed(bundle.path("entities.parquet")))

    def matching(filters: Filters) -> Ids | None:
        # The catalogue takes memory, and is needed for filters alone, or where entities were removed.
        if not filters and all_are_there():
            return None
        found = open_catalogue(bundle).matching(filters)
        return found if overlaid or layer is None else found[found < layer.first]

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


def _ranking(given: Ranking, found: SearchResult, side: str) -> Ranking:
    """Return what was found, with the evidence of the stage that recalled it."""
    similarities = found.products if side == "positive" else -found.products
    return Ranking(found.ids, found.scores, {**evidence_of(given, found.ids), side: similarities})


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
