"""Note how probable it is that each entity belongs to the set, and propose where the list ends. Ours."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np

from engine.membership import Constants, probabilities, proposed, read_constants
from engine.query import Expansion
from engine.stages.base import ANY_ASK, Ask, Stage, Worker, without
from engine.storage.bundle import Bundle

PROBABILITY = "probability"
"""The evidence: of each entity, that it belongs."""

PROPOSED = "proposed"
"""The count: entities from the first on that are proposed as the set."""


class Membership(Stage):
    """Say of each entity how probable it is that it belongs, and of the list where the set ends.

    The order stays. The formula and its constants are those of :mod:`engine.membership`: what
    ``seedset calibrate`` fitted for the method of this name, in the bundle; else those that come with the
    program, which only ``default`` has.
    """

    obeys: ClassVar[frozenset[Ask]] = ANY_ASK - {Ask.CONTEXT}

    method: str = "default"

    @property
    def seed_views(self) -> tuple[str, ...]:
        """None that must be given."""
        return ()

    def open(self, bundle: Bundle) -> Worker:
        """Read the constants.

        Raises:
            BundleError: the bundle has none for the method, and none come with the program.
        """
        constants = read_constants(bundle, self.method)
        return lambda expansions: [
            noted(e, constants) if e.query.positive else without(e, self.name, "fitted to positive seeds")
            for e in expansions
        ]


def noted(expansion: Expansion, constants: Constants) -> Expansion:
    """Return an expansion with the probability of each entity, and the number that is proposed."""
    found = probabilities(expansion.ranking.scores, constants)
    ranking = expansion.ranking.with_evidence(**{PROBABILITY: found.astype(np.float32)})
    return replace(expansion, ranking=ranking, counts={**expansion.counts, PROPOSED: proposed(found)})
