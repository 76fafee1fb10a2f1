"""Follow the workspace's current bundle while requests go on.

A request reads the snapshot once and names its bundle to every stage, so no answer is made of two bundles.
A new bundle is first opened by every replica of every deployment; only then does the snapshot change, in
one assignment. ``/v1/bundle`` says which bundle was refused, and why; the old one serves on.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from engine.errors import BundleError, UserError
from engine.stages.base import missing_requirements
from engine.storage.bundle import Bundle
from serve.errors import state_of
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import Plan
from serve.telemetry.logs import log_event
from serve.telemetry.metrics import Metrics

logger = logging.getLogger("seedset.serve")

RETRY_S = 30.0
"""Seconds after which a refused bundle is tried again: it may have been published anew."""

Prepare = Callable[[str], Awaitable[Mapping[str, str]]]
"""Makes every replica open a bundle; returns what is wrong by deployment, "" where nothing is."""


class Serving(Protocol):
    """A service that answers from a snapshot (:class:`serve.http.service.Service`)."""

    snapshot: BundleSnapshot
    """Snapshot that is served now."""
    refused: tuple[str, str] | None
    """Id of a newer bundle that could not be served, and why."""


class BundleWatcher:
    """A watcher that polls the pointer to the current bundle and changes to it.

    Args:
        service: whose snapshot is replaced.
        current: returns the id of the current bundle; blocking.
        open_snapshot: opens a bundle by its id for the ingress, all files checked; blocking.
        prepare: see :data:`Prepare`.
        noted: told of each change: the bundle that is served, and the one before.
    """

    def __init__(
        self,
        service: Serving,
        metrics: Metrics,
        current: Callable[[], str],
        open_snapshot: Callable[[str], BundleSnapshot],
        prepare: Prepare,
        noted: Callable[[str, str], None] = lambda bundle, before: None,
    ) -> None:
        self._service, self._metrics = service, metrics
        self._current, self._open_snapshot, self._prepare = current, open_snapshot, prepare
        self._noted = noted
        self._refused_at = 0.0

    async def watch(self, every_s: float) -> None:
        """Check every ``every_s`` seconds, until cancelled."""
        told = ""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.check()
                told = ""
            except UserError as error:  # the pointer is not there, or cannot be read
                if str(error) != told:
                    told = str(error)
                    log_event("no current bundle", level=logging.ERROR, reason=told)
            except Exception:  # a bucket or a replica that is away now; the old bundle serves on
                logger.exception("the current bundle could not be looked up")

    async def check(self) -> None:
        """Change to the current bundle if it is another one and every stage can answer from it."""
        wanted = await asyncio.to_thread(self._current)
        service = self._service
        if wanted == service.snapshot.id:
            service.refused = None
            return
        if service.refused and service.refused[0] == wanted and time.monotonic() < self._refused_at + RETRY_S:
            return
        try:
            snapshot = await asyncio.to_thread(self._open_snapshot, wanted)
            if wrong := {name: why for name, why in (await self._prepare(wanted)).items() if why}:
                raise BundleError("; ".join(f"{name}: {why}" for name, why in wrong.items()))
        except UserError as error:
            if not service.refused or service.refused[0] != wanted:
                log_event("bundle refused", level=logging.ERROR, bundle=wanted, reason=str(error))
                self._metrics.bundle_changed("refused")
            service.refused, self._refused_at = (wanted, state_of(error)), time.monotonic()
            return
        before = service.snapshot.id
        service.snapshot, service.refused = snapshot, None
        self._metrics.serving(snapshot.manifest)
        self._metrics.bundle_changed("served")
        log_event("bundle served", bundle=wanted, before=before)
        self._noted(wanted, before)


def check_stages(bundle: Bundle, plan: Plan) -> None:
    """Check that a bundle has the files of every deployed stage.

    Raises:
        BundleError: it lacks some, and why.
    """
    for spec in plan.deployments:
        for stage in spec.stages:
            if lack := missing_requirements(bundle, [stage]):
                raise BundleError(f"{stage.name} is deployed, and {lack}")
