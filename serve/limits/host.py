"""Deploy the one that counts for all replicas of the ingress."""

from __future__ import annotations

from ray.serve.handle import DeploymentHandle

from serve.graph.store_host import answer_in_time
from serve.limits.accounts import Accounts
from serve.limits.leases import Lease, LeaseBook, Leases, lease_size
from serve.settings import ServeSettings
from serve.telemetry.logs import configure_logs

LIMITS = "Limits"
"""The deployment's name."""

ASK_S = 0.5
"""Seconds for a lease; after that the replica counts alone for a while."""


class LimitsHost:
    """The replica that counts. What it has counted is lost with it: accounts are full again.

    Args:
        settings: with the rate, which is set.
    """

    def __init__(self, settings: ServeSettings) -> None:
        configure_logs()
        size = lease_size(settings.burst, settings.ingress_replicas)
        self._book = LeaseBook(Accounts(rate_of(settings), settings.burst), size)

    async def lease(self, caller: str, queries: int, needed: int, back: int) -> Lease:
        """Return a lease (:meth:`~serve.limits.leases.LeaseBook.lease`)."""
        return self._book.lease(caller, queries, needed, back)


def rate_of(settings: ServeSettings) -> float:
    """Return the queries a second that the settings let a caller ask; 0: as many as it likes."""
    return (settings.rate_per_minute or 0) / 60


def is_shared(settings: ServeSettings) -> bool:
    """Return whether several replicas have to count together."""
    return settings.rate_per_minute is not None and settings.ingress_replicas > 1


def leases(settings: ServeSettings, handle: DeploymentHandle) -> Leases:
    """Return what a replica of the ingress counts by; ``handle`` is of :class:`LimitsHost`."""

    async def ask(caller: str, queries: int, needed: int, back: int) -> Lease:
        call = handle.lease.remote(caller, queries, needed, back)
        found: Lease = await answer_in_time(call, "the count of queries", ASK_S)
        return found

    return Leases(ask, rate_of(settings), settings.burst, settings.ingress_replicas)
