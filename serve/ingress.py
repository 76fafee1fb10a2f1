"""Deploy the ingress: it holds the vocabulary and the routes through the stages, and no model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from engine.errors import UserError
from engine.overlay.state import lay_over
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle, current_id
from engine.storage.workspace import Workspace
from serve.audit.host import AUDIT, HandleAudit
from serve.audit.recorder import Recorder
from serve.graph.admission import Admission
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.bundle_watcher import BundleWatcher, check_stages
from serve.graph.deployments import OVERLAY_STORE, first_bundle
from serve.graph.dispatch import LOST, HandleDispatch
from serve.graph.plan import Plan, unavailable_methods
from serve.graph.store_host import StoreHandle
from serve.http.overlay_service import OverlayService
from serve.http.routes import create_app
from serve.http.service import Service
from serve.http.tokens import KnownTokens, TokenSources
from serve.limits.host import LIMITS, leases
from serve.overlay.store import OVERLAY
from serve.sets.host import SETS, HandleSets
from serve.settings import ServeSettings
from serve.telemetry.logs import configure_logs, log_event
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import configure_tracing

PING_S = 3.0
"""Seconds for a stage to answer a ping."""

OVERLAY_S = 15.0
"""Seconds for the overlay's store to answer a replica that begins; it serves without after that."""

PREPARE_S = 1800.0
"""Seconds for all replicas to open a bundle, from a slow bucket too."""


class Ingress:
    """The HTTP deployment.

    Args:
        settings: of the application.
        bundle_id: the bundle that it was deployed with.
        methods: to be served, by name.
        plan: of the deployments behind it.
        handles: their handles, by name; those that hold parts of the index among them.
        beside: the deployments that keep named sets, the audit log and the overlay, and count queries, by
            name: those that there are.
        tokens: that let in.
    """

    def __init__(
        self,
        settings: ServeSettings,
        bundle_id: str,
        methods: Mapping[str, Pipeline],
        plan: Plan,
        handles: Mapping[str, DeploymentHandle],
        beside: Mapping[str, DeploymentHandle],
        tokens: TokenSources,
    ) -> None:
        configure_logs()
        configure_tracing(settings.trace_endpoint, type(self).__name__)
        self._settings, self._methods, self._plan, self._handles = settings, methods, plan, dict(handles)
        self._workspace = Workspace.open(settings.workspace)
        self._sets = HandleSets(beside[SETS]) if SETS in beside else None
        self._recorder = Recorder(HandleAudit(beside[AUDIT])) if AUDIT in beside else None
        self._limit = leases(settings, beside[LIMITS]) if LIMITS in beside else None
        metrics = Metrics()
        self._tokens = KnownTokens(tokens, metrics)
        admission = Admission(settings.max_queued, settings.max_wait_s)
        ask = StoreHandle(beside[OVERLAY], OVERLAY_STORE) if OVERLAY in beside else None
        dispatch = HandleDispatch(plan, handles, admission, metrics, self._overlay_version)
        self._lays_over = ask is not None
        self._opened: dict[str, BundleSnapshot] = {}
        counted = self._counted if settings.ingress_replicas > 1 else None
        snapshot = self._first_snapshot(bundle_id)
        metrics.serving(snapshot.manifest)
        self._service = Service(settings, snapshot, dispatch, metrics, self._ready, counted)
        self._overlay = OverlayService(self._service, ask, self._tell)
        self._watcher = BundleWatcher(
            self._service, metrics, self._current, self._snapshot, self._prepare, self._noted
        )

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = create_app(
            self._service,
            sets=self._sets,
            recorder=self._recorder,
            limit=self._limit,
            tokens=self._tokens,
            overlay=self._overlay,
        )
        app.router.lifespan_context = self._lifespan
        return app

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Follow tokens, bundle and overlay while the replica runs, as the settings say; send the audit."""
        beside = [asyncio.create_task(self._tokens.watch())]
        if self._lays_over:
            await self._begin_overlay()
            beside.append(asyncio.create_task(self._overlay.watch()))
        if self._settings.bundle is None:
            beside.append(asyncio.create_task(self._watcher.watch(self._settings.bundle_poll_interval_s)))
        if self._recorder is not None:
            beside.append(asyncio.create_task(self._recorder.run()))
        try:
            yield
        finally:
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)

    def _noted(self, bundle: str, before: str) -> None:
        """Note in the audit log that another bundle is served."""
        if self._recorder is not None:
            self._recorder.record({"event": "served", "bundle": bundle, "before": before})

    async def _begin_overlay(self) -> None:
        """Read the overlay before the first request, so that no answer has what was deleted."""
        end = time.monotonic() + OVERLAY_S
        while True:
            try:
                await self._overlay.follow_of(self._service.snapshot)
                return
            except UserError as error:
                if time.monotonic() > end:
                    log_event("the overlay cannot be read", level=logging.ERROR, reason=str(error))
                    return
                await asyncio.sleep(0.5)

    async def follow_overlay(self, version: int) -> None:
        """Answer by at least this version of the overlay from now on."""
        await self._overlay.follow(version)

    def _overlay_version(self, bundle_id: str) -> int:
        return self._overlay.version(bundle_id)

    async def _tell(self, version: int) -> int:
        """Make all replicas of the ingress answer by a version; return how many did not say that they do."""
        if self._settings.ingress_replicas == 1:
            return 0
        answers = await self._broadcast("follow_overlay", version)
        return sum(isinstance(answer, Exception) for answer in answers)

    def _first_snapshot(self, bundle_id: str) -> BundleSnapshot:
        """Open the current bundle, or the one that was deployed where that cannot be served."""
        try:
            return self._snapshot(first_bundle(self._settings, bundle_id))
        except UserError:
            return self._snapshot(bundle_id)

    def _current(self) -> str:
        return current_id(self._workspace)

    def _snapshot(self, bundle_id: str) -> BundleSnapshot:
        bundle = Bundle.open(self._workspace, bundle_id)
        check_stages(bundle, self._plan)
        others = unavailable_methods(bundle, self._methods)
        if self._lays_over:
            lay_over(bundle)
        opened = BundleSnapshot.open(bundle, self._methods, self._plan.routes, others)
        self._opened = {bundle_id: opened}
        return opened

    async def drain(self) -> int:
        """Refuse new requests from now on; return how many are under way."""
        return self._service.drain()

    async def metrics_text(self) -> bytes:
        """Return what this replica counts."""
        return await asyncio.to_thread(self._service.metrics.render)

    async def _counted(self) -> list[bytes]:
        """Return what every replica of the ingress counts; one that is just dying is left out."""
        answers = await self._broadcast("metrics_text")
        return [answer for answer in answers if isinstance(answer, bytes)]

    async def _broadcast(self, method: str, *given: Any) -> list[Any]:
        """Ask every replica of the ingress; what one does not answer is an exception."""
        context = serve.get_replica_context()
        handle = serve.get_deployment_handle(context.deployment, context.app_name)
        asked = handle.broadcast(method, *given)
        return list(await asked.results_async(timeout_s=PING_S, return_exceptions=True))

    async def _prepare(self, bundle_id: str) -> dict[str, str]:
        """Make every replica of every deployment open a bundle; parts of the index first."""
        found: dict[str, str] = {}
        shards = [spec.name for spec in self._plan.deployments if spec.shard is not None]
        stages = [spec.name for spec in self._plan.deployments if spec.shard is None]
        for names in (shards, stages):
            answers = await asyncio.gather(*(self._everywhere(name, bundle_id) for name in names))
            found |= dict(zip(names, answers, strict=True))
        if not any(found.values()) and (opened := self._opened.get(bundle_id)):
            # What was added since then is to be in the first answer from this bundle.
            await self._overlay.settle(opened)
        return found

    async def _everywhere(self, name: str, bundle_id: str) -> str:
        """Return the first complaint of a deployment's replicas, or nothing.

        A replica that dies meanwhile opens the bundle when it restarts; one must answer.
        """
        answers = (
            await self._handles[name]
            .broadcast("prepare", bundle_id)
            .results_async(timeout_s=PREPARE_S, return_exceptions=True)
        )
        lost = [answer for answer in answers if isinstance(answer, LOST)]
        if wrong := [a for a in answers if isinstance(a, Exception) and not isinstance(a, LOST)]:
            raise wrong[0]
        if len(lost) == len(answers):
            raise lost[0]
        return next((str(answer) for answer in answers if isinstance(answer, str) and answer), "")

    async def _ready(self) -> dict[str, str]:
        """Return "ok" or what is wrong, by deployment."""
        bundle_id = self._service.snapshot.id

        async def ping(name: str) -> str:
            try:
                async with asyncio.timeout(PING_S):
                    return str(await self._handles[name].ping.remote(bundle_id))
            except TimeoutError:
                return f"no answer within {PING_S:g} s"
            except Exception as error:
                return type(error).__name__

        names = list(self._handles)
        return dict(zip(names, await asyncio.gather(*(ping(name) for name in names)), strict=True))
