"""A service in this process, its stages opened beside it: all of HTTP, nothing of Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import ClassVar, Literal

import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from engine.answering.outcomes import IterativeWorker
from engine.methods import METHODS
from engine.overlay.state import OverlayLayer, overlay_of
from engine.query import Expansion
from engine.stages.base import Stage, Worker
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.stages.overlay import taken_by
from engine.stages.retrieve import Retrieve
from engine.stages.select import Select
from engine.stages.type_mentions import TypeMentions
from engine.storage.bundle import Bundle
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import ENCODE, EXPLAINED, MAP, MENTIONS, NEIGHBOURS, SELECTED
from serve.http.service import Service
from serve.messages import Dispatch, Outcome, Progress, RoundDone, StageDone, StageStats
from serve.settings import ServeSettings
from serve.telemetry.metrics import Metrics

METHOD_NAMES = (
    *("retexpan", "retexpan+cds", "retexpan-negative", "genexpan", "genexpan+cot-class-given"),
    *("mean", "best"),
)

ROUTES: dict[str, tuple[Stage, ...]] = {
    **{name: METHODS[name].stages for name in METHOD_NAMES},
    **{f"{name}{SELECTED}": (*METHODS[name].stages, Select(view="mask")) for name in METHOD_NAMES},
    **{f"{name}{EXPLAINED}": (*METHODS[name].stages, Explain(view="mask")) for name in METHOD_NAMES},
    **{
        f"{name}{SELECTED}{EXPLAINED}": (*METHODS[name].stages, Select(view="mask"), Explain(view="mask"))
        for name in METHOD_NAMES
    },
    NEIGHBOURS: (Retrieve(view="mask"),),
    MAP: (Explain(view="mask"),),
    MENTIONS: (TypeMentions(),),
    ENCODE: (),
}

MakeService = Callable[..., Service]
MakeClient = Callable[..., TestClient]


class LocalDispatch:
    """The stages in this process, opened when they are first needed, once for all tests.

    ``delay`` seconds pass before each answer.
    """

    opened: ClassVar[dict[tuple[str, OverlayLayer | None, Stage], Worker]] = {}

    def __init__(self, bundle: Bundle, metrics: Metrics, delay: float = 0) -> None:
        self._bundle, self._metrics, self._delay = bundle, metrics, delay

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        await asyncio.sleep(self._delay)
        found = list(expansions)
        for stage in self._stages(route, found):
            layer = overlay_of(self._bundle)
            found = await self._run(stage, self._worker(stage), [taken_by(stage, e, layer) for e in found])
        return list(found)

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        await asyncio.sleep(self._delay)
        for stage in self._stages(route, [expansion]):
            started = time.perf_counter()
            worker = self._worker(stage)
            grower: object = worker
            if isinstance(grower, IterativeWorker):
                growing = grower.start([expansion])
                for done in filter(None, grower.rounds(growing)):
                    yield RoundDone(stage.name, done.number, tuple(done.new.tolist()), done.total)
                    await asyncio.sleep(0)
                expansion = grower.answer(expansion, growing[0])
            else:
                (expansion,) = await self._run(stage, worker, [expansion])
            yield StageDone(stage.name, time.perf_counter() - started, len(expansion.ranking))
        yield expansion

    def _stages(self, route: str, expansions: Sequence[Expansion]) -> tuple[Stage, ...]:
        return (
            *((EncodeNewEntities(),) if any(e.query.unencoded for e in expansions) else ()),
            *ROUTES[route],
        )

    def _worker(self, stage: Stage) -> Worker:
        key = (str(self._bundle.folder), overlay_of(self._bundle), stage)
        if key not in self.opened:
            self.opened[key] = stage.open(self._bundle)
        return self.opened[key]

    async def _run(self, stage: Stage, worker: Worker, expansions: list[Expansion]) -> list[Expansion]:
        started = time.perf_counter()
        found = await asyncio.to_thread(worker, expansions)
        took = time.perf_counter() - started
        ranked = sum(len(e.ranking) for e in found)
        self._metrics.observe(StageStats(stage.name, took, len(found), ranked))
        seconds = {stage.name: took / len(found)}
        return [replace(e, seconds={**e.seconds, **seconds}) for e in found]


def open_snapshot(bundle: Bundle) -> BundleSnapshot:
    """Return what is served of a bundle: :data:`METHOD_NAMES`."""
    return BundleSnapshot.open(bundle, {name: METHODS[name] for name in METHOD_NAMES}, ROUTES)


def service_maker(snapshot: BundleSnapshot, bundle: Bundle) -> MakeService:
    """Return what makes services over a bundle, with the given settings and delay, or another dispatch."""

    def make(dispatch: Dispatch | None = None, delay: float = 0, **settings: object) -> Service:
        workspace = str(bundle.folder.parent.parent)
        checked = ServeSettings.model_validate({"workspace": workspace, **settings})
        metrics = Metrics()
        metrics.serving(snapshot.manifest)
        return Service(checked, snapshot, dispatch or LocalDispatch(bundle, metrics, delay), metrics)

    return make


@contextmanager
def running(app: ASGIApp, lifespan: Literal["on", "off"] = "off") -> Iterator[str]:
    """Serve an application over a real connection while the block runs; yields the address."""
    config = uvicorn.Config(app, port=0, log_level="warning", log_config=None, lifespan=lifespan)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server ended before it began"
            thread.join(0.005)
        (port,) = {socket.getsockname()[1] for one in server.servers for socket in one.sockets}
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
