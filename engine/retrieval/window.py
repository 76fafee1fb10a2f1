"""Grow sets by window search and re-rank them: the authors' program of ProbExpan and MultiExpan.

MultiExpan's paper ("Entity Expansion") refers to ProbExpan for both and describes neither; this is what both
published programs compute. Let l_e be an entity's standardised log-distribution and p_e its distribution
(:mod:`engine.retrieval.distributions`), N the vocabulary, and S the set: the seeds, then what was taken.

1. All entities are ordered by the sum over S of l_member[candidate]: what the members' contexts predict.
   It is made anew at every step, with the member that was just taken.
2. Of the first w candidates that are free, the one with the least KL(s || p_c) is taken, ties by order. s is
   made for the candidate c: mean(p_c) everywhere, p_c[c] at c, and a multiple of mean(p_c) at the members,
   1,000 times at the first 41 places of S, 500 at the next 34, and 300 beyond. So a candidate is near if it
   predicts the members, and is even elsewhere. w is 1 for the first 20 steps, and then widens
   (:class:`Schedule`).
3. Re-ranking: score = mu / place + 1 / rank, rank by the same divergence with 1,600 times at the first 20
   places, 900 at the next 15, 600 at the next 35 and 150 beyond. A member is itself in S here, so it has the
   multiple at c.

s as it is made does not sum to one, and the program does not divide it by its sum. Its divergence does:
``scipy.stats.entropy(s, p_c)`` divides both by their sums first. So does the one here, where p_c sums to one
already. In a closed form, with A the ids of s that are not mean(p_c) = 1/N, Z the sum of s, and the mean of
log p_c over the vocabulary at hand,

    Z KL = sum over A of s_j log(s_j / p_j) - (1/N) (sum over all j of log p_j - sum over A of log p_j)
           - (1 - |A| / N) log N - Z log Z

so a candidate costs one look at each id that is kept of it, and nothing of N.

**Arithmetic for 50,000 entities**, k = 200, 3 seeds, M = 256: a step adds 256 values and looks once through
the 50,000 sums, 400 kB: 10 million looks in all, which dominate. w is above 1 in 80 steps, up to 16, so 754
candidates and, in re-ranking, 200 have their 256 ids looked up among the members. The authors' program sorts
the 50,000 sums and adds |S| rows of 50,000 in every step, 200 x 103 x 50,000 = 1 billion additions, and takes
divergences over all 50,000. Results are equal (tests compare with a plain dense program) up to N = M.

Where the program takes seeds to be three, whatever their number, the number stands here. Entities without a
distribution are no candidates. Knows nothing of bundles, queries or names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.query import Ids, Scores
from engine.retrieval.distributions import LEAST, EntityDistributions, Real

SEARCH_WEIGHTS = ((41, 1000.0), (75, 500.0), (None, 300.0))
"""Multiples of mean(p_c) at the members in the search: up to which place of the set, and how many times."""

RANK_WEIGHTS = ((20, 1600.0), (35, 900.0), (70, 600.0), (None, 150.0))
"""The same in re-ranking."""

CARRIED = 13
"""Members of the set, seeds among them, with which the second iteration begins."""


class Schedule(NamedTuple):
    """How many candidates a step considers.

    Args:
        first: at the start.
        growth: what is added to it for every ``every`` steps, once these have passed; a quarter more from
            step 50 on; from step 100 on a step considers one candidate.
        every: see there.
    """

    first: float = 1
    growth: float = 2.5
    every: int = 20

    def size(self, taken: int) -> int:
        """Return the window of the step after ``taken`` entities were taken."""
        if taken >= 100:
            return 1
        if taken < self.every:
            return int(self.first)
        return int(self.first + taken / self.every * self.growth * (1 if taken < 50 else 1.25))


class WindowSearchState:
    """A set that grows, and the candidates that may join it.

    Args:
        distributions: of all entities.
        of_seeds: the distributions that the seeds' predictions are taken from.
        seeds: ids that have one there, each once.
        candidates: ids that may be taken; None: all. Absent ones and seeds may not.
        exclude: more ids that may not.
        schedule: of the window.
    """

    def __init__(
        self,
        distributions: EntityDistributions,
        of_seeds: EntityDistributions,
        seeds: Sequence[int],
        candidates: Ids | None = None,
        exclude: Iterable[int] = (),
        schedule: Schedule | None = None,
    ) -> None:
        self._all, self._of_seeds, self.seeds = distributions, of_seeds, tuple(seeds)
        self._schedule = schedule or Schedule()
        free_N = distributions.present_B.copy()
        if candidates is not None:
            free_N[:] = False
            free_N[candidates] = distributions.present_B[candidates]
        free_N[[i for i in (*seeds, *exclude) if i >= 0]] = False
        self._free_N, self._own_N = free_N, distributions.own_B
        self.members: list[int] = []
        self.start(self.seeds)

    def start(self, members: Sequence[int]) -> None:
        """Begin anew with some members: the seeds first."""
        self._sums_N = np.where(self._free_N, 0.0, -np.inf)
        self.members = []
        for member in members:
            self._join(member)

    @property
    def taken(self) -> int:
        """The number of members besides the seeds."""
        return len(self.members) - len(self.seeds)

    def close(self, entity: int) -> None:
        """Let an entity be no candidate any more."""
        self._sums_N[entity] = -np.inf

    def step(self) -> int | None:
        """Take one entity and return it; None where no candidate is left."""
        window = first_of(self._sums_N, self._schedule.size(self.taken))
        if not len(window):
            return None
        chosen = int(window[0])
        if len(window) > 1:
            chosen = int(window[np.argmin(self.divergence(window, SEARCH_WEIGHTS))])
        self._join(chosen)
        return chosen

    def _join(self, entity: int) -> None:
        of = self._of_seeds if len(self.members) < len(self.seeds) else self._all
        of.logs.add_to(self._sums_N, entity)
        self.members.append(entity)
        self.close(entity)

    def divergence(self, ids: Ids, weights: Sequence[tuple[int | None, float]]) -> Real:
        """Return KL(s || p) in nats of some entities, s and p divided by their sums, float64 [n]."""
        n, members = len(self._all), np.array(self.members, np.int32)
        s_M = multiples(len(members), weights) / n
        logs_BM = np.log(np.maximum(self._all.probabilities.at(ids, members, n), LEAST))
        own_B = self._own_N[ids]
        # At the candidate s is p_c, unless it is a member: then A has it already.
        joins_B = ~np.isin(ids, members)
        rest_B = 1 - (len(members) + joins_B) / n
        total_B = s_M.sum() + own_B * joins_B + rest_B
        at_members_B = (s_M * (np.log(s_M) - logs_BM)).sum(axis=1)
        logs_B = self._all.mean_log_B[ids] - (logs_BM.sum(axis=1) + np.log(own_B) * joins_B) / n
        return (at_members_B - logs_B - rest_B * np.log(n)) / total_B - np.log(total_B)

    def rerank(self, mu: float) -> Reranked:
        """Order what was taken by mu / place + 1 / rank, ties by id; the set is then in this order."""
        seeds, ids = self.members[: len(self.seeds)], np.array(self.members[len(self.seeds) :], np.int32)
        divergences = self.divergence(ids, RANK_WEIGHTS)
        place = np.arange(1, len(ids) + 1)
        rank = np.empty(len(ids))
        rank[np.argsort(divergences, kind="stable")] = place
        # In float32, as the program sorts: scores that are equal but for rounding are ordered by id.
        scores = (mu / place + 1 / rank).astype(np.float32)
        order = np.lexsort((ids, -scores))
        self.members = [*seeds, *ids[order].tolist()]
        return Reranked(ids[order], scores[order], divergences[order], place[order])


@dataclass(frozen=True)
class Reranked:
    """What a set took, best first: ids, scores, divergences of the re-ranking, and places in the search."""

    ids: Ids
    scores: Scores
    divergences: Real
    places: npt.NDArray[np.int64]


def multiples(size: int, weights: Sequence[tuple[int | None, float]]) -> Real:
    """Return how many times mean(p_c) stands at each place of a set."""
    found = np.empty(size)
    start = 0
    for end, weight in weights:
        found[start:end] = weight
        start = size if end is None else end
    return found


def first_of(sums_N: Real, count: int) -> Ids:
    """Return the ids of the ``count`` largest sums, largest first, ties by id; none that is -inf."""
    if count == 1:
        best = int(np.argmax(sums_N))
        return np.array([best] if np.isfinite(sums_N[best]) else [], np.int32)
    # They lie at or above the count-th largest peak of stretches, which are quicker looked through.
    starts = np.arange(0, len(sums_N), max(1, len(sums_N) // (16 * count)))
    peaks = np.maximum.reduceat(sums_N, starts)
    least = np.partition(peaks, len(peaks) - count)[len(peaks) - count] if len(peaks) >= count else -np.inf
    some = np.flatnonzero(sums_N >= least)
    some = some[np.isfinite(sums_N[some])]
    return some[np.argsort(-sums_N[some], kind="stable")[:count]].astype(np.int32)


def grow_sets(sets: Sequence[WindowSearchState], sizes: Sequence[int], gone: Collection[int] = ()) -> None:
    """Grow sets together: each takes one entity a turn, in order, and an entity is in one set at most.

    Of a single set this is the plain search.

    Args:
        sets: the sets.
        sizes: entities that each is to have taken; fewer where no candidate is left.
        gone: entities that none may take, such as the seeds of all.
    """
    for taken in (*gone, *(member for other in sets for member in other.members)):
        for own in sets:
            own.close(taken)
    growing = list(range(len(sets)))
    while growing:
        still = []
        for number in growing:
            own = sets[number]
            entity = own.step() if own.taken < sizes[number] else None
            if entity is None:
                continue
            still.append(number)
            for other in sets:
                other.close(entity)
        growing = still


def expand_sets(
    sets: Sequence[WindowSearchState],
    sizes: Sequence[int],
    mu: float = 9,
    iterations: int = 1,
    gone: Collection[int] = (),
) -> list[Reranked]:
    """Grow sets together and re-rank them, over again: ``total_iter`` of the authors' program.

    The second iteration begins with the first 13 members of each set, seeds among them. A later one begins
    with the beginning of the set that the last two iterations have in common: up to the first length at which
    something of the one before last is missing in the last. Sets that grow together begin with equally
    many, by the first of them that changed. mu grows by 2 each time. Where nothing changed in any set, one
    more re-ranking, of the whole sets, is the last.

    Args:
        sets: at their seeds.
        sizes: entities that each is to take.
        mu: weight of the place in the first iteration.
        iterations: at most; 1 grows and re-ranks once.
        gone: entities that none may take.
    """
    found: list[Reranked] = []
    before: list[list[int]] = []
    reached = CARRIED
    for number in range(iterations):
        last = [own.members for own in sets]
        changed = True
        if number == 1:
            _restart(sets, CARRIED)
        elif number > 1:
            cursor = next(
                (c for own, old in zip(sets, before, strict=True) if (c := common(own, old, reached))), None
            )
            changed = cursor is not None
            if cursor is not None:
                reached = cursor
                _restart(sets, cursor)
        before = last
        if changed:
            grow_sets(sets, sizes, gone)
        found = [own.rerank(mu + 2 * number) for own in sets]
        if not changed:
            break
    return found


def _restart(sets: Sequence[WindowSearchState], length: int) -> None:
    for own in sets:
        own.start(own.members[: max(length, len(own.seeds))])


def common(own: WindowSearchState, old: Sequence[int], least: int) -> int | None:
    """Return the least length from ``least`` on at which the old set's beginning is not within the new one's.

    None: there is no such length, the set did not change.
    """
    seeds = len(own.seeds)
    for length in range(max(least, seeds), min(len(old), len(own.members))):
        if not set(old[seeds:length]) <= set(own.members[:length]):
            return length
    return None
