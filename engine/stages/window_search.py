"""Expand by predicted distributions: window search and re-ranking (MultiExpan, "Entity Expansion").

The paper takes both from ProbExpan and leaves open how the class weighs its members, how wide the window
is, and which way the divergence is taken. Here a seed weighs 1 and the i-th entity taken 1 / (1 + i), so
that after 200 entities three seeds still make up 38 % of the class and what was taken late, and is the
least certain, moves it least; the window is 10; and the divergence is KL(entity || class), which the
mean of a set minimises on average (:mod:`engine.retrieval.distributions`). All are settings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from engine.query import Expansion, Query, Ranking
from engine.retrieval.distributions import ClassMean, SparseDistributions, Towards, distributions_folder
from engine.retrieval.window import WindowSearchState, grow_sets
from engine.stages.base import Stage, Worker
from engine.stages.retrieve import Matching, allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle


class WindowSearch(Stage):
    """Grow the set of positive seeds to k entities, then order these by place and similarity to the whole.

    Each step takes, of the ``window`` best candidates by divergence to the seeds, the one that is nearest
    to the set so far. Then an entity's score is mu / (its place in the search) + 1 / (its rank by
    divergence to the final set). Evidence: ``divergence``, to the seeds, in nats, and ``rank``, the place.

    Seeds are never returned, and negative ones are not used. A query that wants more than k gets it. After a
    stage that recalled candidates, or where a query has filters, only those are searched. Entities
    without a context are not ranked.

    Args:
        k: entities to take.
        view: whose distributions are used.
        seed_view: the view of the seeds' distributions; none: the same (the paper's table 5 takes the
            modalities of seeds and candidates away apart).
        window: candidates that a step considers.
        mu: weight of the place in the search.
        decay: the i-th entity taken weighs (1 + i) ** -decay; 0: as much as a seed.
        towards: direction of the divergence.
        jointly: the queries of a call are expanded together, as the authors do it, one entity each a
            turn, and an entity comes into one query's set at most: into that which it diverges from
            least, ties by place in the call. Seeds are in their query's set from the start. The answer
            to a query then depends on the other queries of its call.
    """

    k: int = Field(default=200, ge=1)
    view: str = "multimodal"
    seed_view: str | None = None
    window: int = Field(default=10, ge=1)
    mu: float = Field(default=9, ge=0)
    decay: float = Field(default=1, ge=0)
    towards: Towards = "class"
    jointly: bool = False

    unit: ClassVar[str] = "steps"
    budget: ClassVar[int] = 2_000  # about a second

    def cost(self, expansion: Expansion) -> int:
        """Return how many entities are taken."""
        return max(self.k, expansion.query.top_k)

    @property
    def batch_dependent(self) -> bool:
        """True if an answer depends on the other queries of the call."""
        return self.jointly

    def needs(self) -> tuple[str, ...]:
        """Name the views' distributions."""
        return tuple(map(distributions_folder, dict.fromkeys((self.view, self.seed_view or self.view))))

    def open(self, bundle: Bundle) -> Worker:
        """Map the views' distributions."""
        distributions, of_seeds = (
            bundle.once(distributions_folder(view), SparseDistributions.read)
            for view in (self.view, self.seed_view or self.view)
        )
        distributions.prepare(self.towards)
        matching = matching_of(bundle)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            seeds = [_present(e.query, of_seeds) for e in expansions]
            sets = {
                number: self._begin(e, own, distributions, of_seeds, matching)
                for number, (e, own) in enumerate(zip(expansions, seeds, strict=True))
                if own
            }
            self._grow(sets, expansions)
            return [
                replace(
                    e,
                    ranking=self._ranking(e.ranking, sets[number]) if own else Ranking.empty(),
                    degraded=e.degraded + self._notes(e.query, own),
                )
                for number, (e, own) in enumerate(zip(expansions, seeds, strict=True))
            ]

        return run

    def _begin(
        self,
        expansion: Expansion,
        seeds: Sequence[int],
        distributions: SparseDistributions,
        of_seeds: SparseDistributions,
        matching: Matching,
    ) -> WindowSearchState:
        mean = ClassMean(len(distributions))
        for seed in seeds:
            mean.add(of_seeds, seed)
        return WindowSearchState(
            distributions,
            mean,
            allowed(expansion, True, matching),
            exclude=expansion.query.seeds,
            window=self.window,
            decay=self.decay,
            towards=self.towards,
        )

    def _grow(self, sets: Mapping[int, WindowSearchState], expansions: Sequence[Expansion]) -> None:
        """Let the sets grow, those of the numbered expansions: all together, or each as if it were alone."""
        sizes = [self.cost(expansions[number]) for number in sets]
        if self.jointly:
            seeds = [seed for number in sets for seed in expansions[number].query.positive]
            grow_sets(list(sets.values()), sizes, seeds)
            return
        for own, size in zip(sets.values(), sizes, strict=True):
            grow_sets([own], [size])

    def _ranking(self, given: Ranking, found: WindowSearchState) -> Ranking:
        """Return the re-ranked set, with the evidence of the stage that recalled it; ties by place."""
        ids = found.candidates[found.taken]
        place = np.arange(1, len(ids) + 1)
        rank = np.empty(len(ids))
        rank[np.argsort(found.to_class(), kind="stable")] = place
        scores = self.mu / place + 1 / rank
        evidence = {
            **evidence_of(given, ids),
            "divergence": found.divergences[found.taken].astype(np.float32),
            "rank": place.astype(np.float32),
        }
        whole = Ranking(ids, scores.astype(np.float32), evidence)
        return whole.take(np.argsort(-scores, kind="stable"))

    def _notes(self, query: Query, seeds: Sequence[int]) -> tuple[str, ...]:
        """Return a note for each positive seed without a distribution, as every new entity is."""
        used = np.isin(query.positive, seeds)[:, None].astype(np.float32)
        return unused(self.name, query, "positive", query.positive, used, lacks="distribution")


def _present(query: Query, distributions: SparseDistributions) -> list[int]:
    """Return the positive seeds that have a distribution."""
    return [seed for seed in query.positive if seed >= 0 and distributions.present_N[seed]]
