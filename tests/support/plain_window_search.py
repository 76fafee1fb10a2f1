"""The search of ProbExpan and MultiExpan, written plainly: dense rows, everything anew at every step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class PlainSet:
    """A query: its seeds, the candidates that it may take, and how many."""

    seeds: list[int]
    free: set[int]
    size: int
    members: list[int] = field(default_factory=list)
    scores: dict[int, float] = field(default_factory=dict)
    divergences: dict[int, float] = field(default_factory=dict)


def standard(rows: np.ndarray) -> list[np.ndarray]:
    """Return l of each entity, rounded as it is stored."""
    return [
        ((row - row.mean()) / row.std() if row.any() else row).astype(np.float32)
        for row in rows.astype(np.float64)
    ]


@dataclass
class PlainSearch:
    """The authors' program.

    Args:
        p: the distributions [N, N] of the candidates.
        logs: the mean log-distributions [N, N] of the candidates.
        seed_logs: those of the seeds.
    """

    p: np.ndarray
    logs: np.ndarray
    seed_logs: np.ndarray
    mu: float = 9
    first: float = 1
    growth: float = 2.5
    every: int = 20

    def __post_init__(self) -> None:
        self.of_seed, self.of_taken = standard(self.seed_logs), standard(self.logs)

    def divergence(self, own: PlainSet, candidate: int, weights: Sequence[float]) -> float:
        """Return KL(s || p_c), both divided by their sums, the multiples given by place."""
        p_c = self.p[candidate]
        s = np.full(len(p_c), p_c.mean())
        s[candidate] = p_c[candidate]
        for member, weight in zip(own.members, weights, strict=False):
            s[member] = weight * p_c.mean()
        s, p = s / s.sum(), p_c / p_c.sum()
        return float((s * np.log(s / p)).sum())

    def window(self, taken: int) -> int:
        """Return how many candidates a step considers."""
        if taken >= 100:
            return 1
        if taken < self.every:
            return int(self.first)
        wider = taken / self.every * self.growth
        return int(self.first + (wider * 1.25 if taken >= 50 else wider))

    def take(self, own: PlainSet, gone: set[int]) -> int | None:
        """Return what a set takes next."""
        sums = np.zeros(len(self.p))
        for member in own.members:
            sums += (self.of_seed if member in own.seeds else self.of_taken)[member]
        free = [c for c in own.free if c not in gone and c not in own.members]
        if not free:
            return None
        free.sort(key=lambda c: (-sums[c], c))
        weights = [1000.0] * 41 + [500.0] * 34 + [300.0] * len(self.p)
        near = [
            self.divergence(own, c, weights) for c in free[: self.window(len(own.members) - len(own.seeds))]
        ]
        return free[near.index(min(near))]

    def rerank(self, own: PlainSet, mu: float) -> None:
        """Order what a set took."""
        weights = [1600.0] * 20 + [900.0] * 15 + [600.0] * 35 + [150.0] * len(self.p)
        seeds, taken = own.members[: len(own.seeds)], own.members[len(own.seeds) :]
        own.divergences = {c: self.divergence(own, c, weights) for c in taken}
        by_divergence = sorted(taken, key=lambda c: own.divergences[c])
        own.scores = {
            c: float(np.float32(mu / (place + 1) + 1 / (by_divergence.index(c) + 1)))
            for place, c in enumerate(taken)
        }
        own.members = seeds + sorted(taken, key=lambda c: (-own.scores[c], c))

    def grow(self, sets: Sequence[PlainSet]) -> None:
        """Let each set take one in its turn, none what another has."""
        moving = True
        while moving:
            moving = False
            for own in sets:
                if len(own.members) - len(own.seeds) >= own.size:
                    continue
                gone = {m for other in sets for m in (*other.members, *other.seeds)}
                found = self.take(own, gone)
                if found is not None:
                    own.members.append(found)
                    moving = True

    def run(self, sets: Sequence[PlainSet], iterations: int = 1) -> None:
        """Search and re-rank, over again."""
        previous: list[list[int]] = []
        least = 13
        for own in sets:
            own.members = list(own.seeds)
        for number in range(iterations):
            current = [list(own.members) for own in sets]
            cut = 13 if number == 1 else None
            if number > 1:
                for own, old in zip(sets, previous, strict=True):
                    n = len(own.seeds)
                    for length in range(max(least, n), min(len(old), len(own.members))):
                        if any(entity not in own.members[:length] for entity in old[n:length]):
                            cut = length
                            break
                    if cut is not None:
                        least = cut
                        break
            if cut is not None:
                for own in sets:
                    own.members = own.members[: max(cut, len(own.seeds))]
            if number < 2 or cut is not None:
                self.grow(sets)
            for own in sets:
                self.rerank(own, self.mu + 2 * number)
            if number > 1 and cut is None:
                break
            previous = current
