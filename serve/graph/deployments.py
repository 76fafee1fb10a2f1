"""Run stages of a bundle, or hold a part of its vectors: the deployments behind the ingress."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any

from ray.serve.handle import DeploymentHandle

from engine.errors import BundleError, UserError
from engine.models import device
from engine.overlay.state import lay_over
from engine.retrieval.index import index_file, views_of
from engine.retrieval.shards import IndexShard, ShardedIndex
from engine.storage.bundle import Bundle, current_id
from engine.storage.workspace import Workspace
from serve.errors import state_of
from serve.graph.bundle_cache import BundleCache
from serve.graph.dispatch import FIRST_PAUSE_S, LONGEST_PAUSE_S, LOST
from serve.graph.plan import DeploymentSpec
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.graph.store_host import StoreHandle
from serve.messages import Progress, Reply, Task
from serve.overlay.follower import OverlayFollower
from serve.settings import ServeSettings
from serve.telemetry.logs import configure_logs, log_event
from serve.telemetry.tracing import configure_tracing

OVERLAY_STORE = "the overlay"
"""What is said to be out of reach where its store is."""

STAGE_GRACE_S = 0.1
"""Seconds past the deadline in which a stage may still return what it has."""


class Host:
    """A replica that has bundles open."""

    _bundles: BundleCache[Any]
    _logged = ""

    async def _begin(self, settings: ServeSettings, bundle_id: str) -> None:
        """Open the current bundle. A bad one does not keep the replica down: another may be asked for."""
        configure_logs()
        configure_tracing(settings.trace_endpoint, type(self).__name__)
        await self.prepare(await asyncio.to_thread(first_bundle, settings, bundle_id))

    async def prepare(self, bundle_id: str) -> str:
        """Open a bundle and keep it as the newest; return what is wrong with it, or nothing."""
        try:
            await self._bundles.prepare(bundle_id)
        except UserError as error:
            return self._told(bundle_id, error)
        return ""

    async def ping(self, bundle_id: str) -> str:
        """Return "ok" where the bundle is open and can answer, else why not."""
        try:
            opened = await self._bundles.get(bundle_id)
            if isinstance(opened, OpenedBundle):
                await asyncio.to_thread(opened.bundle.check_present)
        except UserError as error:
            return self._told(bundle_id, error)
        return "ok"

    async def _opened(self, bundle_id: str) -> Any:
        """Return what is open of a bundle.

        Raises:
            BundleError: it cannot be opened; says no more than callers are told.
        """
        try:
            return await self._bundles.get(bundle_id)
        except UserError as error:
            raise BundleError(self._told(bundle_id, error)) from None

    def _told(self, bundle_id: str, error: UserError) -> str:
        """Return what callers are told of a bundle that cannot be opened; the log has it all, once."""
        if (reason := str(error)) != self._logged:
            log_event("bundle cannot be used", level=logging.ERROR, bundle=bundle_id, reason=reason)
            self._logged = reason
        return state_of(error)


class StageHost(Host):
    """A replica of a stage deployment: its stages behind one thread.

    Args:
        shards: handles of the deployments that hold the vectors, if they are spread.
        overlay: the handle of the deployment that keeps the overlay, if one does.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self,
        settings: ServeSettings,
        bundle_id: str,
        spec: DeploymentSpec,
        shards: Sequence[DeploymentHandle] = (),
        overlay: DeploymentHandle | None = None,
    ) -> None:
        self._settings, self._spec, self._shards = settings, spec, shards
        self._overlay = None if overlay is None else StoreHandle(overlay, OVERLAY_STORE)
        device.grant(gpu=bool(spec.settings.num_gpus))
        device.split_models(settings.tensor_parallel)
        self._bundles = BundleCache(self._open)
        self._loop = asyncio.get_running_loop()
        budget = spec.settings.batch_budget
        budgets = [stage.budget if budget is None else budget for stage in spec.stages]
        self._runner = StageRunner(spec.stages, budgets, settings.batch_wait_ms / 1000)
        await self._begin(settings, bundle_id)

    def check_health(self) -> None:
        """Raise where the thread has ended, so that Serve replaces the replica."""
        if not self._runner.is_alive:
            raise RuntimeError("the thread that computes has ended")

    async def run(self, task: Task) -> Reply:
        """Return the task's outcomes after its chain of stages, or as they are at its deadline."""
        job = Job(task, await self._up_to_date(task))
        await self._until_done(job)
        return job.reply()

    async def stream(self, task: Task) -> AsyncIterator[Progress | Reply]:
        """Yield the progress of a task, and its reply last."""
        loop = asyncio.get_running_loop()
        happened: asyncio.Queue[Progress | None] = asyncio.Queue()

        def report(progress: Progress) -> None:
            loop.call_soon_threadsafe(happened.put_nowait, progress)

        job = Job(task, await self._up_to_date(task), report)
        waiting = asyncio.ensure_future(self._until_done(job))
        waiting.add_done_callback(lambda _: happened.put_nowait(None))
        try:
            while (progress := await happened.get()) is not None:
                yield progress
            await waiting
            yield job.reply()
        finally:
            job.dropped = True
            waiting.cancel()

    async def _up_to_date(self, task: Task) -> OpenedBundle:
        """Return the bundle that a task asks, with the overlay that its caller knows.

        Raises:
            BundleError: it cannot be opened.
            UnavailableError: the overlay's store does not answer.
        """
        opened: OpenedBundle = await self._opened(task.bundle)
        if task.overlay and opened.follower:
            await opened.follower.at_least(task.overlay)
        return opened

    async def _until_done(self, job: Job) -> None:
        """Wait for a job, at most to its deadline. A caller that went away ends it."""
        self._runner.submit(job)
        deadline = job.deadline
        timeout = None if deadline is None else max(deadline.remaining(), 0) + STAGE_GRACE_S
        try:
            await asyncio.wait({asyncio.wrap_future(job.done)}, timeout=timeout)
        finally:
            job.dropped = not job.done.done()

    def _open(self, bundle_id: str) -> OpenedBundle:
        bundle = Bundle.open(Workspace.open(self._settings.workspace), bundle_id)
        if self._shards:
            for view in views_of(bundle.manifest):
                shards = RemoteShards(self._shards, self._loop, bundle_id, view)
                bundle.provide(index_file(view), ShardedIndex.connect(shards, len(self._shards)))
        follower = None
        if self._overlay is not None:
            follower = OverlayFollower(self._overlay, bundle_id, lay_over(bundle))
        return OpenedBundle.open(bundle, self._spec.stages, follower)


class ShardHost(Host):
    """A replica of a shard deployment: some rows of every view of a bundle's vectors."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, settings: ServeSettings, bundle_id: str, spec: DeploymentSpec
    ) -> None:
        assert spec.shard is not None
        self._settings, self._number, self._count = settings, spec.shard, settings.index_shards
        self._bundles = BundleCache(self._open)
        await self._begin(settings, bundle_id)

    async def ask(self, bundle_id: str, view: str, calls: Sequence[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Return what methods of this part of a view return, in order."""
        shard: IndexShard = (await self._opened(bundle_id))[view]
        return await asyncio.to_thread(lambda: [getattr(shard, name)(*given) for name, given in calls])

    def _open(self, bundle_id: str) -> dict[str, IndexShard]:
        bundle = Bundle.open(Workspace.open(self._settings.workspace), bundle_id)
        return {
            view: IndexShard.read(bundle.path(index_file(view)), self._number, self._count)
            for view in views_of(bundle.manifest)
        }


class RemoteShards:
    """The parts of a view on their deployments, asked all at once from a thread that may block."""

    def __init__(
        self,
        handles: Sequence[DeploymentHandle],
        loop: asyncio.AbstractEventLoop,
        bundle_id: str,
        view: str,
    ) -> None:
        self._handles, self._loop, self._bundle_id, self._view = handles, loop, bundle_id, view

    def call(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        """Return the answers to (shard, method, arguments), in order."""
        return asyncio.run_coroutine_threadsafe(self._gather(requests), self._loop).result()

    async def _gather(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        places: dict[int, list[int]] = {}
        for place, (shard, _, _) in enumerate(requests):
            places.setdefault(shard, []).append(place)
        answers: list[Any] = [None] * len(requests)

        async def ask(shard: int, mine: list[int]) -> None:
            calls = [(requests[place][1], requests[place][2]) for place in mine]
            for place, answer in zip(mine, await self._again(shard, calls), strict=True):
                answers[place] = answer

        await asyncio.gather(*(ask(shard, mine) for shard, mine in places.items()))
        return answers

    async def _again(self, shard: int, calls: list[tuple[str, tuple[Any, ...]]]) -> list[Any]:
        """Repeat the call until there is an answer; the caller gives up at its own deadline."""
        pause = FIRST_PAUSE_S
        while True:
            try:
                found: list[Any] = await self._handles[shard].ask.remote(self._bundle_id, self._view, calls)
                return found
            except LOST:
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)


def first_bundle(settings: ServeSettings, given: str) -> str:
    """Return the bundle that a new replica opens first: what is current now, or the one it was made for."""
    if settings.bundle is not None:
        return settings.bundle
    try:
        return current_id(Workspace.open(settings.workspace))
    except UserError:
        return given
