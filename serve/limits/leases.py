"""Share accounts between replicas: one counts, and the others hold small leases of what they may admit.

A replica asks for what a query lacks, and gets a few more with it, which it admits without a call for
:data:`LEASE_S`; what is left then goes back. With R replicas a lease is ``burst / 2R``, at least 1. Against
one process that counts (:class:`~serve.limits.accounts.Accounts`):

- From the start on, no more is ever admitted than burst + rate · time. In a window, up to R leases more, half
  the burst, may be admitted, as accounts fill while leases are out.
- A query is refused early only if the R - 1 leases of the others, within their second, would be needed for
  it; or if a moment before (:data:`DENIED_S`) the same was refused.
- While the one that counts is away, each replica counts its share of rate and burst alone; the one that comes
  back begins with full accounts. So a restart lets up to two bursts more in.
- What counts as no query (a look-up) is refused while the account is in debt, as far as the replica heard.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serve.errors import UnavailableError
from serve.limits.accounts import Accounts

LEASE_S = 1.0
"""Seconds for which a lease may be used."""

DENIED_S = 0.1
"""Seconds for which a refusal stands for others: who is refused costs ten calls a second, no more."""

AWAY_S = 1.0
"""Seconds after which the one that counts is asked again, if it did not answer."""


@dataclass(frozen=True)
class Lease:
    """An answer of the one that counts.

    Args:
        spare: queries that may be admitted besides those asked for.
        wait_s: 0 if those are admitted, or the seconds until they can be.
        debt_s: seconds for which the account is in debt.
    """

    spare: int
    wait_s: float
    debt_s: float


Ask = Callable[[str, int, int, int], Awaitable[Lease]]
"""Asks the one that counts: caller, queries, what the account must hold for them, and what goes back.

May raise UnavailableError.
"""


def lease_size(burst: int, replicas: int) -> int:
    """Return the queries of a lease."""
    return max(1, burst // (2 * replicas))


class LeaseBook:
    """The one that counts.

    Args:
        accounts: of all callers.
        size: of a lease.
    """

    def __init__(self, accounts: Accounts, size: int) -> None:
        self._accounts, self._size = accounts, size

    def lease(self, caller: str, queries: int, needed: int, back: int) -> Lease:
        """Take queries off an account, and a lease with them, as far as it holds one (:data:`Ask`)."""
        accounts = self._accounts
        if back:
            accounts.put(caller, back)
        wait_s = accounts.take(caller, queries, needed) if queries else 0
        spare = 0
        if queries and not wait_s:
            spare = max(0, min(self._size - queries, int(accounts.level(caller))))
        if spare:
            accounts.take(caller, spare, spare)
        return Lease(spare, wait_s, max(0, -accounts.level(caller) / accounts.rate))


@dataclass
class _Held:
    """What a replica holds of one caller's account."""

    queries: int = 0
    since: float = 0
    debt_until: float = 0
    denied_at: float = float("-inf")
    denied: Lease = field(default_factory=lambda: Lease(0, 0, 0))
    denied_need: int = 0
    returning: bool = False
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Leases:
    """The share of one replica of all accounts (:class:`~serve.limits.accounts.Limit`).

    Args:
        ask: the one that counts.
        rate: queries a second of a caller, over all replicas.
        burst: of a caller, over all replicas.
        replicas: that share them.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        ask: Ask,
        rate: float,
        burst: int,
        replicas: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._burst, self._clock = ask, burst, clock
        self._alone = Accounts(rate / replicas, max(1, burst // replicas), clock)
        self._away_until = float("-inf")
        self._held: dict[str, _Held] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def spend(self, caller: str, queries: int) -> float:
        """Take queries off a caller's account; return 0, or the seconds after which it holds them."""
        held = self._held.setdefault(caller, _Held())
        if not queries:
            return max(0.0, held.debt_until - self._clock())
        async with held.lock:  # those who wait find the lease that the first one brings
            return await self._spend(caller, held, queries)

    async def _spend(self, caller: str, held: _Held, queries: int) -> float:
        now = self._clock()
        back = 0
        if now - held.since >= LEASE_S:
            back, held.queries = held.queries, 0
        if held.queries >= queries:
            held.queries -= queries
            return 0
        if now < self._away_until:
            return await self._alone.spend(caller, queries)
        needed = min(queries, self._burst) - held.queries
        if now - held.denied_at < DENIED_S and needed >= held.denied_need:
            held.queries += back
            return max(held.denied.wait_s - (now - held.denied_at), DENIED_S / 10)
        try:
            lease = await self._ask(caller, queries - held.queries, needed, back)
        except UnavailableError:
            self._away_until = self._clock() + AWAY_S
            return await self._alone.spend(caller, queries)
        now = self._clock()
        held.debt_until = now + lease.debt_s
        if lease.wait_s:
            held.denied_at, held.denied, held.denied_need = now, lease, needed
            return lease.wait_s
        held.queries, held.since = lease.spare, now
        self._return_later(caller, held)
        return 0

    def _return_later(self, caller: str, held: _Held) -> None:
        """Give back what is left of a lease once it may not be used any more."""
        if held.returning or not held.queries:
            return
        held.returning = True

        async def give_back() -> None:
            await asyncio.sleep(max(0.0, held.since + LEASE_S - self._clock()))
            held.returning = False
            await self.give_back(caller)
            self._return_later(caller, held)  # a newer one

        task = asyncio.create_task(give_back())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def give_back(self, caller: str) -> None:
        """Give back what is left of a caller's lease, if its time is over. Lost where nobody takes it."""
        held = self._held[caller]
        async with held.lock:
            if not held.queries or self._clock() - held.since < LEASE_S:
                return
            back, held.queries = held.queries, 0
            try:
                await self._ask(caller, 0, 0, back)
            except UnavailableError:
                self._away_until = self._clock() + AWAY_S
