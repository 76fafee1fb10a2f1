"""Admit queries by their expected wait, not by a count alone (load shedding).

A query that would wait longer than a caller waits is refused at once, while that is cheap: a queue that
only grows helps nobody. The expected wait is the work in flight over the rate at which work is done.
Both are estimated from finished queries: the work of one is what the stages said it took, plus a little
overhead; the rate is the work done per second with something in flight, so that replicas, cores, shared
batches and other tenants of the machine are all in it.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.errors import OverloadedError

OVERHEAD_S = 0.003
"""Work of a query besides its stages, in seconds."""

UNKNOWN_S = 0.05
"""Assumed work of a query of a route without an answer so far: a start under load must not admit all."""

RECENT = 64
"""Latest queries that the rate is estimated from."""

WEIGHT = 0.2
"""Weight of the newest query in the moving average of its route."""

MAX_RETRY_AFTER_S = 60

ALWAYS = 2
"""Queries in flight below which one more is always admitted: nothing is idle because of an estimate."""


class Admission:
    """An account of the work in flight. For one event loop.

    Args:
        max_queued: limit on queries in flight, whatever they cost.
        max_wait_s: the longest expected wait.
        clock: monotonic, in seconds.
    """

    def __init__(
        self, max_queued: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_queued, self._max_wait_s, self._clock = max_queued, max_wait_s, clock
        self.queries = 0
        """Queries in flight."""
        self._work = 0.0
        self._work_of: dict[str, float] = {}
        self._busy_s = 0.0
        self._busy_since = 0.0
        self._done: deque[tuple[float, float]] = deque(maxlen=RECENT)
        """Work of the latest queries, and the busy time at which each ended."""

    @contextmanager
    def admit(self, route: str, queries: int) -> Iterator[Callable[[int, float], None]]:
        """Admit queries of a route while the block runs.

        Yields a function to call with the number of answered queries and the seconds that stages took.

        Raises:
            OverloadedError: too many are in flight, or the wait would be too long.
        """
        expected = self._work_of.get(route, UNKNOWN_S)
        self._check(queries)
        if not self.queries:
            self._busy_since = self._clock()
        self.queries += queries
        self._work += expected * queries
        answered: list[tuple[int, float]] = []
        try:
            yield lambda n, seconds: answered.append((n, seconds))
        finally:
            for n, seconds in answered:
                self._learn(route, n, seconds)
            self.queries -= queries
            self._work = self._work - expected * queries if self.queries else 0.0
            if not self.queries:
                self._busy_s += self._clock() - self._busy_since

    @property
    def wait_s(self) -> float:
        """The expected wait of a query that came now, in seconds."""
        return self._work / self._rate()

    def _check(self, queries: int) -> None:
        if self.queries + queries > max(self._max_queued, queries):
            raise self._refusal(f"{self.queries} queries are in flight")
        if self.queries >= ALWAYS and self.wait_s > self._max_wait_s:
            raise self._refusal(f"a query would wait {self.wait_s:.1f} s for its turn")

    def _refusal(self, why: str) -> OverloadedError:
        retry_after_s = max(1, min(MAX_RETRY_AFTER_S, math.ceil(self.wait_s - self._max_wait_s / 2)))
        return OverloadedError(f"too much to do: {why}; try again in {retry_after_s} s", retry_after_s)

    def _learn(self, route: str, queries: int, seconds: float) -> None:
        newest = OVERHEAD_S + seconds / queries
        known = self._work_of.get(route)
        self._work_of[route] = newest if known is None else known + WEIGHT * (newest - known)
        self._done.append((newest * queries, self._busy_s + self._clock() - self._busy_since))

    def _rate(self) -> float:
        """Return the recent work done per busy second; 1 while that is not known."""
        if len(self._done) < RECENT // 8:
            return 1.0
        span = self._done[-1][1] - self._done[0][1]
        work = sum(one for one, _ in self._done) - self._done[0][0]
        return work / span if span > 0 else 1.0
