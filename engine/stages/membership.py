"""Note how probable it is that each entity belongs to the set, and propose where the list ends. Ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from engine.membership import Constants, cohesion, probabilities, proposed, read_constants
from engine.query import Expansion, Query
from engine.retrieval.index import index_file, seed_vectors
from engine.retrieval.opening import open_index
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, without
from engine.storage.bundle import Bundle

PROBABILITY = "probability"
"""The evidence: of each entity, that it belongs."""

PROPOSED = "proposed"
"""The count: entities from the first on that are proposed as the set."""

COHESION_VIEW = "joint"
"""The view in which seeds are compared with each other, unless another is named."""


class Membership(Stage):
    """Say of each entity how probable it is that it belongs, and of the list where the set ends.

    The order stays. The formula and its constants are those of :mod:`engine.membership`: what
    ``seedset calibrate`` fitted for the method of this name, in the bundle; else those that come with the
    program, which only ``default`` has. ``view`` is where seeds are compared with each other, the same as in
    ``seedset calibrate``.
    """

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES - {QueryFeature.CONTEXT}

    method: str = "default"
    view: str = COHESION_VIEW

    @property
    def seed_views(self) -> tuple[str, ...]:
        """The view in which seeds are compared."""
        return (self.view,)

    def needs(self) -> tuple[str, ...]:
        """Name the view's index."""
        return (index_file(self.view),)

    def open(self, bundle: Bundle) -> Worker:
        """Read the constants and the view's index.

        Raises:
            BundleError: the bundle has no such view, or no constants for the method, and none come with the
                program.
        """
        constants, cohesions = read_constants(bundle, self.method), open_cohesions(bundle, self.view)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            own = cohesions([e.query for e in expansions])
            return [
                noted(e, one, constants)
                if e.query.positive
                else without(e, self.name, "fitted to positive seeds")
                for e, one in zip(expansions, own, strict=True)
            ]

        return run


def open_cohesions(bundle: Bundle, view: str) -> Callable[[Sequence[Query]], list[float | None]]:
    """Return what says how alike the positive seeds of each query are (:func:`engine.membership.cohesion`).

    Raises:
        BundleError: the bundle lacks the view.
    """
    index = open_index(bundle, view)

    def cohesions(queries: Sequence[Query]) -> list[float | None]:
        vectors = seed_vectors(index, view, [(query, query.positive) for query in queries])
        return [
            cohesion(own, query.weights_of(query.positive))
            for query, own in zip(queries, vectors, strict=True)
        ]

    return cohesions


def noted(expansion: Expansion, seed_cohesion: float | None, constants: Constants) -> Expansion:
    """Return an expansion with the probability of each entity, and the number that is proposed."""
    found = probabilities(expansion.ranking.scores, seed_cohesion, constants)
    ranking = expansion.ranking.with_evidence(**{PROBABILITY: found.astype(np.float32)})
    return replace(expansion, ranking=ranking, counts={**expansion.counts, PROPOSED: proposed(found)})
