"""Explain an answer: the seed of either kind that each entity is most similar to."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from engine.catalogue.opening import open_types
from engine.entity_types import TYPES, EntityTypes
from engine.query import Expansion, Scores
from engine.retrieval.index import Index, index_file, seed_vectors
from engine.retrieval.opening import open_index
from engine.retrieval.plane import principal_plane
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, cut
from engine.stages.types import SeedTypes
from engine.storage.bundle import Bundle


class Explain(Stage):
    """Name the nearest positive and the nearest negative seed of each entity that will be shown.

    Adds the evidence ``nearest_positive``, a seed's place in ``query.positive`` (-1: no seed of the kind,
    or not the entity itself, has a vector in the view), and ``nearest_positive_similarity``, their cosine
    (NaN in that case); likewise for the negative seeds, if there are any. A seed is not its own nearest.
    The order stays, and the ranking is cut to what the query asked for, with what is passed over before it.
    Where the bundle holds types, what the seeds are goes, in words, into the reasoning
    (:class:`engine.stages.types.SeedTypes`).
    ``plane`` adds where the entities lie on a map of them: the evidence ``x``, ``y`` and ``off``, the
    distance off the plane (:func:`engine.retrieval.plane.principal_plane`).
    """

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES

    view: str = "joint"
    plane: bool = False

    num_cpus: ClassVar[float] = 0.1  # a product for each entity that is shown

    @property
    def seed_views(self) -> tuple[str, ...]:
        """None that must be given."""
        return ()

    def needs(self) -> tuple[str, ...]:
        """Name the view's index."""
        return (index_file(self.view),)

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = open_index(bundle, self.view)
        types = open_types(bundle) if TYPES in bundle.manifest.files else None

        def run(expansions: list[Expansion]) -> list[Expansion]:
            shown = [cut(e) for e in expansions]
            if types is not None:
                shown = [_in_words(e, types) for e in shown]
            seeds = seed_vectors(index, self.view, [(e.query, e.query.seeds) for e in shown])
            asked = [(e.ranking.ids, own.astype(np.float64)) for e, own in zip(shown, seeds, strict=True)]
            found = [_explained(e, p) for e, p in zip(shown, index.similarities(asked), strict=True)]
            return [_laid_out(e, index) if self.asked(e.query).plane else e for e in found]

        return run


def _in_words(expansion: Expansion, types: EntityTypes) -> Expansion:
    """Add what the seeds are; what a stage has reasoned stays."""
    words = SeedTypes.of(expansion.query, types).in_words()
    return replace(expansion, reasoning={**words, **expansion.reasoning})


def _explained(expansion: Expansion, cosines_NM: Scores) -> Expansion:
    """Add the columns, given each entity's cosines to the seeds of both kinds, float32 [n, M]."""
    n_positive = len(expansion.query.positive)
    own_NM = expansion.ranking.ids[:, None] == np.array(expansion.query.seeds)
    cosines_NM = np.where(own_NM, np.float32(0), cosines_NM)  # as if it had no vector
    columns = _nearest("nearest_positive", cosines_NM[:, :n_positive]) if n_positive else {}
    if expansion.query.negative:
        columns |= _nearest("nearest_negative", cosines_NM[:, n_positive:])
    return replace(expansion, ranking=expansion.ranking.with_evidence(**columns))


def _laid_out(expansion: Expansion, index: Index) -> Expansion:
    """Add the coordinates of the entities, which do not depend on their order."""
    ids, places = np.unique(expansion.ranking.ids, return_inverse=True)
    plane = principal_plane(index.vectors_of(ids.tolist()))
    columns = {name: column[places] for name, column in plane._asdict().items()}
    return replace(expansion, ranking=expansion.ranking.with_evidence(**columns))


def _nearest(name: str, cosines_NM: Scores) -> dict[str, Scores]:
    # A product of exactly zero is one with the zeros that stand for no vector.
    known_NM = np.where(cosines_NM == 0, np.float32(-np.inf), cosines_NM)
    place_N = known_NM.argmax(axis=1)
    cosine_N = known_NM.max(axis=1)
    has_one = np.isfinite(cosine_N)
    return {
        name: np.where(has_one, place_N, -1).astype(np.float32),
        f"{name}_similarity": np.where(has_one, cosine_N, np.nan).astype(np.float32),
    }
