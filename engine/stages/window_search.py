"""Expand by predicted distributions: the search of ProbExpan and MultiExpan (MESED, "Entity Expansion").

What is computed is the authors' program (:mod:`engine.retrieval.window`). Over the multi-modal encoder's
distributions this is MultiExpan, over those of the text encoder ProbExpan.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field, model_validator

from engine.query import Expansion, Query, Ranking
from engine.retrieval.distributions import (
    EntityDistributions,
    distributions_folder,
    log_distributions_folder,
)
from engine.retrieval.window import Reranked, Schedule, WindowSearchState, expand_sets
from engine.stages.base import Stage, Worker, by_settings
from engine.stages.retrieve import allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle

OF_CLASS_MEAN = ("window", "decay", "towards")
"""Settings of a search by divergence to the mean of the set, which this stage was before."""


class WindowSearch(Stage):
    """Grow the set of positive seeds to k entities by what its members' contexts predict, and re-rank it.

    Each step orders all candidates by the summed standardised log-distributions of the set's members, and
    takes, of the first few, the window, the one whose distribution is nearest to a reference that expects
    the members, by KL divergence, both divided by their sums. Then an entity's score is mu / (its place in
    the search) + 1 / (its rank by that divergence to the whole set). Evidence: ``divergence``, that of the
    re-ranking, in nats, and ``rank``, the place in the search.

    Seeds are never returned, and negative ones are not used. A query that wants more than k gets it. After a
    stage that recalled candidates, or where a query has filters, only those are searched. Entities
    without a context are not ranked.

    Args:
        k: entities to take.
        view: whose distributions are used.
        seed_view: the view of the seeds' log-distributions; none: the same (the paper's table 5 takes the
            modalities of seeds and candidates away apart).
        mu: weight of the place in the search; in a further iteration 2 more.
        first_window: candidates that the first steps consider.
        window_growth: what is added to the window for every ``window_steps`` steps.
        window_steps: see there.
        iterations: search again, beginning with the best of what was found (the authors' ``total_iter``).
        jointly: the queries of a call are expanded together, as the authors do it: in a turn each takes one
            entity, in their order, and an entity comes into one query's set at most. Seeds are in their
            query's set from the start. The answer to a query then depends on the other queries of its call.
    """

    k: int = Field(default=200, ge=1)
    view: str = "multimodal"
    seed_view: str | None = None
    mu: float = Field(default=9, ge=0)
    first_window: float = Field(default=1, ge=1)
    window_growth: float = Field(default=2.5, ge=0)
    window_steps: int = Field(default=20, ge=1)
    iterations: int = Field(default=1, ge=1, le=20)
    jointly: bool = False

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "k": (1, 2_000),
        "mu": (0, 1_000),
        "first_window": (1, 1_000),
        "window_growth": (0, 1_000),
        "iterations": (1, 5),
    }
    unit: ClassVar[str] = "steps"
    budget: ClassVar[int] = 2_000  # about a second

    @model_validator(mode="before")
    @classmethod
    def _refuse_former(cls, given: Any) -> Any:
        former = [name for name in OF_CLASS_MEAN if isinstance(given, Mapping) and name in given]
        if former:
            raise ValueError(
                f"WindowSearch has no setting {former[0]!r} any more: it was of a search by divergence to "
                "the mean of the set, which found less than the authors' search and is gone. The authors' "
                "window is set by first_window, window_growth and window_steps; leave them out for the "
                "authors' values"
            )
        return given

    def cost(self, expansion: Expansion) -> int:
        """Return how many entities are taken."""
        own = self.asked(expansion.query)
        return max(own.k, expansion.query.wanted) * own.iterations

    @property
    def batch_dependent(self) -> bool:
        """True if an answer depends on the other queries of the call."""
        return self.jointly

    def needs(self) -> tuple[str, ...]:
        """Name the views' distributions and log-distributions."""
        views = dict.fromkeys((self.view, self.seed_view or self.view))
        return tuple(f(view) for view in views for f in (distributions_folder, log_distributions_folder))

    def open(self, bundle: Bundle) -> Worker:
        """Map the views' distributions.

        Raises:
            BundleError: the bundle has none, or without log-distributions; says what makes them.
        """
        for name in self.needs():
            bundle.path(name)
        distributions, of_seeds = (
            bundle.once(distributions_folder(view), EntityDistributions.read)
            for view in (self.view, self.seed_view or self.view)
        )
        has_one = of_seeds.present_B
        distributions.prepare()
        matching = matching_of(bundle)

        def run(own: WindowSearch, expansions: list[Expansion]) -> list[Expansion]:
            schedule = Schedule(own.first_window, own.window_growth, own.window_steps)
            seeds = [[s for s in e.query.positive if s >= 0 and has_one[s]] for e in expansions]
            sets = {
                number: WindowSearchState(
                    distributions, of_seeds, present, allowed(e, True, matching), e.query.kept_out, schedule
                )
                for number, (e, present) in enumerate(zip(expansions, seeds, strict=True))
                if present
            }
            found = own._search(sets, expansions)
            return [
                replace(
                    e,
                    ranking=_ranking(e.ranking, found[number]) if present else Ranking.empty(),
                    degraded=e.degraded + self._notes(e.query, present),
                )
                for number, (e, present) in enumerate(zip(expansions, seeds, strict=True))
            ]

        return lambda expansions: by_settings(self, expansions, run)

    def _search(
        self, sets: Mapping[int, WindowSearchState], expansions: Sequence[Expansion]
    ) -> dict[int, Reranked]:
        """Return what the sets took, those of the numbered expansions: all together, or each as if alone."""
        sizes = {number: max(self.k, expansions[number].query.wanted) for number in sets}
        together = [list(sets)] if self.jointly else [[number] for number in sets]
        found: dict[int, Reranked] = {}
        for numbers in together:
            seeds = [seed for number in numbers for seed in expansions[number].query.positive if seed >= 0]
            found |= zip(
                numbers,
                expand_sets(
                    [sets[number] for number in numbers],
                    [sizes[number] for number in numbers],
                    self.mu,
                    self.iterations,
                    seeds,
                ),
                strict=True,
            )
        return found

    def _notes(self, query: Query, seeds: Sequence[int]) -> tuple[str, ...]:
        """Return a note for each positive seed without a distribution, as every new entity is."""
        used = np.isin(query.positive, seeds)[:, None].astype(np.float32)
        return unused(self.name, query, "positive", query.positive, used, lacks="distribution")


def _ranking(given: Ranking, found: Reranked) -> Ranking:
    """Return a re-ranked set, with the evidence of the stage that recalled it."""
    evidence = {
        **evidence_of(given, found.ids),
        "divergence": found.divergences.astype(np.float32),
        "rank": found.places.astype(np.float32),
    }
    return Ranking(found.ids, found.scores, evidence)
