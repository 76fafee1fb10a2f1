"""Keep an account of queries for each caller: a token bucket, which fills at a rate up to a burst."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

ROUNDING = 1e-6
"""Tolerance in queries: a caller that waits exactly as long as it was asked to is admitted."""


class Limit(Protocol):
    """What admits queries, wherever they are counted."""

    async def spend(self, caller: str, queries: int) -> float:
        """Take queries off a caller's account; return 0, or the seconds after which it holds them."""
        ...


class Accounts:
    """The accounts of all callers, in one process. Used from one thread only.

    Args:
        rate: queries a second by which each fills.
        burst: the most that one holds, and what it holds at first.
        clock: monotonic, in seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self.burst, self._clock = rate, burst, clock
        self._levels: dict[str, tuple[float, float]] = {}

    async def spend(self, caller: str, queries: int) -> float:
        """Take queries (:class:`Limit`).

        More queries at once than the burst need a full account, and leave it in debt: so the rate holds.
        """
        return self.take(caller, queries, min(queries, self.burst))

    def level(self, caller: str) -> float:
        """Return what an account holds now; less than 0: it is in debt."""
        now = self._clock()
        level, then = self._levels.get(caller, (float(self.burst), now))
        level = min(self.burst, level + (now - then) * self.rate)
        self._levels[caller] = level, now
        return level

    def take(self, caller: str, queries: float, needed: float) -> float:
        """Take queries where the account holds what is needed; return 0, or the seconds until it does."""
        level = self.level(caller)
        if needed - level > ROUNDING:
            return (needed - level) / self.rate
        self._levels[caller] = level - queries, self._levels[caller][1]
        return 0

    def put(self, caller: str, queries: float) -> None:
        """Put back what was taken and not used, up to the burst."""
        level = min(self.burst, self.level(caller) + queries)
        self._levels[caller] = level, self._levels[caller][1]
