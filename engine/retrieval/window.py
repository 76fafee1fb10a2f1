"""Grow sets by window search: each step takes the candidate nearest to the set so far.

Candidates are ordered by their divergence to the seeds. Each step considers the first of them that
are not taken yet, the window, and takes the one with the least divergence to the set, which it joins; the
window then moves on by one. So the set, and not the seeds alone, says what comes next, and the window
keeps a set that drifts from reaching for what is far from its seeds.

Knows nothing of bundles, queries or names.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from engine.query import Ids
from engine.retrieval.distributions import ClassMean, Probabilities, SparseDistributions, Towards


class WindowSearchState:
    """A set, the candidates that may join it, and its window.

    Args:
        distributions: of all entities.
        seeds: the mean of the seeds; the entities that are taken are added to it.
        candidates: ascending ids, each once; None: all entities. Absent ones are left out.
        exclude: ids that are no candidates.
        window: candidates that a step considers.
        decay: the i-th entity taken weighs (1 + i) ** -decay, and a seed 1.
        towards: see :class:`engine.retrieval.distributions.Centre`.
    """

    def __init__(
        self,
        distributions: SparseDistributions,
        seeds: ClassMean,
        candidates: Ids | None,
        exclude: Sequence[int],
        window: int,
        decay: float,
        towards: Towards,
    ) -> None:
        self._distributions, self._mean = distributions, seeds
        self._size, self._decay, self._towards = window, decay, towards
        centre = seeds.centre(towards)
        if candidates is None:
            candidates = np.arange(len(distributions), dtype=np.int32)
            divergences = distributions.divergence(centre)
        else:
            divergences = distributions.divergence_of(candidates, centre)
        divergences[np.isin(candidates, exclude)] = np.inf
        order = np.argsort(divergences, kind="stable")[: np.isfinite(divergences).sum()]
        self.candidates, self.divergences = candidates[order], divergences[order]
        self.taken: list[int] = []
        """Places in ``candidates``, in the order in which they were taken."""
        self._window: list[int] = []
        self._next = 0

    def nearest(self, gone: Collection[int]) -> tuple[float, int] | None:
        """Return the least divergence in the window and its place in ``candidates``, ties by place.

        Args:
            gone: entities that are taken; nothing else is left: None.
        """
        ids = self.candidates
        self._window = [place for place in self._window if ids[place] not in gone]
        while len(self._window) < self._size and self._next < len(ids):
            if ids[self._next] not in gone:
                self._window.append(self._next)
            self._next += 1
        if not self._window:
            return None
        found = self._distributions.divergence_of(ids[self._window], self._mean.centre(self._towards))
        best = int(np.argmin(found))
        return float(found[best]), self._window[best]

    def take(self, place: int) -> int:
        """Add a candidate to the set and return its id."""
        self.taken.append(place)
        entity = int(self.candidates[place])
        self._mean.add(self._distributions, entity, (1 + len(self.taken)) ** -self._decay)
        return entity

    def to_class(self) -> Probabilities:
        """Return the divergence of each taken entity to the set as it is now, float64, in their order."""
        ids = self.candidates[self.taken]
        return self._distributions.divergence_of(ids, self._mean.centre(self._towards))


def grow_sets(sets: Sequence[WindowSearchState], sizes: Sequence[int], gone: Collection[int] = ()) -> None:
    """Grow sets together, turn by turn: one entity each a turn, and an entity into one set at most.

    In a turn the least divergence of all is served first, ties by place among the sets; a set that wanted
    the same entity searches its window again. Of a single set this is the plain search.

    Args:
        sets: the sets.
        sizes: entities that each is to take; it takes fewer where no candidate is left.
        gone: entities that none may take, such as seeds.
    """
    taken = set(gone)
    growing = [number for number, size in enumerate(sizes) if size > 0]
    while growing:
        wishes = {number: wish for number in growing if (wish := sets[number].nearest(taken))}
        growing = []
        while wishes:
            number = min(wishes, key=lambda one: (wishes[one][0], one))
            entity = sets[number].take(wishes.pop(number)[1])
            taken.add(entity)
            if len(sets[number].taken) < sizes[number]:
                growing.append(number)
            for other in [n for n, (_, place) in wishes.items() if sets[n].candidates[place] == entity]:
                if wish := sets[other].nearest(taken):
                    wishes[other] = wish
                else:
                    del wishes[other]
