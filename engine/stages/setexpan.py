"""Expand by context features that the seeds share (SetExpan: :mod:`engine.retrieval.rank_ensemble`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from engine.query import Expansion, Query, Ranking
from engine.retrieval.rank_ensemble import RankEnsemble, Samples, draw_samples
from engine.retrieval.skipgrams import SKIPGRAMS, SkipGrams
from engine.stages.base import Stage, Worker, by_settings
from engine.stages.retrieve import Matching, allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle


class SetExpan(Stage):
    """Grow the set of positive seeds, iteration by iteration, by entities met in the same contexts.

    An iteration selects the skip-grams that are typical of the set so far, ranks entities by ``samples``
    random shares of these, and takes all whose mean reciprocal rank is at least 1 / ``rank``, in its order
    (Shen et al. 2017, section 3.3). It ends when none is taken, when no skip-gram is left, after
    ``iterations``, or with ``k`` entities. The list is therefore as long as the method makes it, and often
    shorter than asked for; with ``fill`` (ours) the entities that the last iteration ranked and did not
    take follow.

    Seeds are never returned; negative ones are not used otherwise, as in the authors' program. After a
    stage that recalled candidates, or where a query has filters, only those may be taken. Evidence:
    ``mrr``, the mean reciprocal rank, and ``iteration``, from 1. The score is the first less the
    iterations before.

    **Where the paper is open.** The authors' two programs disagree on constants: T = 60, Q = 150, alpha =
    0.7, r = 4, skip-grams of 2 to 30 entities in C++; T = 30, Q = 200, alpha = 0.6, r = 5, 3 to 30 in
    Python. Here T and Q are of the first, the rest is of the second, as is that 30 places of a ranking
    count and that 10 iterations are enough. Features are drawn without replacement (the Python program
    tosses a coin for each). Draws begin anew with every query, so that an answer depends on no other.

    Args:
        k: entities to take at most; a query that wants more gets it.
        features: skip-grams selected, Q.
        samples: rankings of an ensemble, T.
        share: of the selected skip-grams that a sample holds, alpha.
        rank: the mean rank that is good enough, r.
        places: of a ranking that count.
        iterations: at most.
        least: entities that a skip-gram has at least.
        most: entities that a skip-gram has at most.
        fill: let the runners-up of the last iteration follow.
        seed: of the draws.
    """

    k: int = Field(default=200, ge=1)
    features: int = Field(default=150, ge=1)
    samples: int = Field(default=60, ge=1)
    share: float = Field(default=0.6, gt=0, le=1)
    rank: float = Field(default=5, ge=1)
    places: int = Field(default=30, ge=1)
    iterations: int = Field(default=10, ge=1)
    least: int = Field(default=3, ge=1)
    most: int = Field(default=30, ge=1)
    fill: bool = False
    seed: int = Field(default=13, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "k": (1, 2_000),
        "rank": (1, 100),
        "iterations": (1, 100),
    }
    unit: ClassVar[str] = "iterations"

    def cost(self, expansion: Expansion) -> int:
        """Return the iterations at most."""
        return self.asked(expansion.query).iterations

    def needs(self) -> tuple[str, ...]:
        """Name the skip-grams."""
        return (SKIPGRAMS,)

    def open(self, bundle: Bundle) -> Worker:
        """Read the skip-grams.

        Raises:
            BundleError: the bundle was built without them.
        """
        skipgrams = bundle.once(SKIPGRAMS, SkipGrams.read)
        ensemble = RankEnsemble(skipgrams, self.features, (self.least, self.most))
        matching = matching_of(bundle)

        def run(own: SetExpan, expansions: list[Expansion]) -> list[Expansion]:
            return [own._expand(e, skipgrams, ensemble, matching) for e in expansions]

        return lambda expansions: by_settings(self, expansions, run)

    def _expand(
        self, expansion: Expansion, skipgrams: SkipGrams, ensemble: RankEnsemble, matching: Matching
    ) -> Expansion:
        query = expansion.query
        used = present_seeds(query, skipgrams)
        may_be = allowed(expansion, bool(used), matching)
        ranked_N = np.ones(len(skipgrams), bool) if may_be is None else np.zeros(len(skipgrams), bool)
        if may_be is not None:
            ranked_N[may_be] = True
        ranked_N[[i for i in query.kept_out if i >= 0]] = False
        found = self._grow(used, ensemble, ranked_N, max(self.k, query.wanted)) if used else Ranking.empty()
        found = found.with_evidence(**evidence_of(expansion.ranking, found.ids))
        return replace(
            expansion,
            ranking=found,
            degraded=expansion.degraded + seeds_without_contexts(self.name, query, used),
        )

    def _grow(self, seeds: Sequence[int], ensemble: RankEnsemble, ranked_N: Samples, size: int) -> Ranking:
        random = np.random.default_rng(self.seed)
        members, rows, rest = list(seeds), list[tuple[int, float, int]](), list[tuple[int, float, int]]()
        for iteration in range(1, self.iterations + 1):
            selected = ensemble.select(members)
            if not len(selected):
                break
            samples_TQ = draw_samples(self.samples, len(selected), self.share, random)
            ids, sums = ensemble.reciprocal_ranks(members, selected, samples_TQ, ranked_N, self.places)
            found = [(int(i), s / self.samples, iteration) for i, s in zip(ids, sums, strict=True)]
            # A sum of reciprocal ranks that is on the threshold may be rounded below it.
            taken = [row for row in found if row[1] >= 1 / self.rank - 1e-9]
            rows, rest = rows + taken, found[len(taken) :]
            if not taken or len(rows) >= size:
                break
            members += [entity for entity, _, _ in taken]
            ranked_N[members] = False
        rows += rest if self.fill else []
        columns = list(zip(*rows[:size], strict=True)) or [(), (), ()]
        ids_n, mrr, step = np.array(columns[0], np.int32), *(np.array(c, np.float32) for c in columns[1:])
        return Ranking(ids_n, mrr - (step - 1), {"mrr": mrr, "iteration": step})


def present_seeds(query: Query, skipgrams: SkipGrams) -> list[int]:
    """Return the positive seeds that have a skip-gram; a new entity has none."""
    return [seed for seed in query.positive if seed >= 0 and skipgrams.present_N[seed]]


def seeds_without_contexts(stage: str, query: Query, used: Sequence[int]) -> tuple[str, ...]:
    """Return a note for each positive seed that a stage could not use."""
    has = np.isin(query.positive, used)[:, None].astype(np.float32)
    return unused(stage, query, "positive", query.positive, has, lacks="context that another entity has too")
