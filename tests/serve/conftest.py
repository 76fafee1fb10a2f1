"""A service in this process, its stages opened beside it: all of HTTP, nothing of Ray."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import ClassVar

import pytest
import uvicorn
from fastapi.testclient import TestClient
from starlette.types import ASGIApp

from engine.methods import METHODS
from engine.query import Expansion
from engine.stages.base import Stage, Worker
from engine.stages.describe import Describe
from engine.stages.explain import Explain
from engine.stages.generate import Generator
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from serve.graph.bundle_snapshot import Edition
from serve.graph.plan import EXPLAINED, NEIGHBOURS
from serve.http.routes import create_app
from serve.http.service import Service
from serve.messages import Dispatch, Outcome, Progress, RoundDone, StageDone, StageStats
from serve.settings import ServeSettings
from serve.telemetry import logs
from serve.telemetry.metrics import Metrics
from tests.support.bundles import method_bundle

METHOD_NAMES = ("retexpan", "retexpan+cds", "retexpan-negative", "genexpan")

ROUTES: dict[str, tuple[Stage, ...]] = {
    **{name: METHODS[name].stages for name in METHOD_NAMES},
    **{f"{name}{EXPLAINED}": (*METHODS[name].stages, Explain(view="mask")) for name in METHOD_NAMES},
    NEIGHBOURS: (Retrieve(view="mask"),),
}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("serve-workspace"))


@pytest.fixture(scope="session")
def workspace(bundle: Bundle) -> Path:
    return bundle.folder.parent.parent


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Each test finds the program's logger unconfigured: what opens a replica configures it for good."""
    root = logging.getLogger(logs.NAME)
    yield
    root.setLevel(logging.NOTSET)
    root.handlers, root.propagate = [], True


class LocalDispatch:
    """The stages in this process, opened when they are first needed, once for all tests.

    ``delay`` seconds pass before each answer.
    """

    opened: ClassVar[dict[tuple[str, Stage], Worker]] = {}

    def __init__(self, bundle: Bundle, metrics: Metrics, delay: float = 0) -> None:
        self._bundle, self._metrics, self._delay = bundle, metrics, delay

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        await asyncio.sleep(self._delay)
        found = list(expansions)
        for stage in self._stages(route, found):
            found = await self._run(stage, self._worker(stage), found)
        return list(found)

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        await asyncio.sleep(self._delay)
        for stage in self._stages(route, [expansion]):
            started = time.perf_counter()
            worker = self._worker(stage)
            if isinstance(worker, Generator):
                growing = worker.start([expansion])
                for done in worker.rounds(growing):
                    yield RoundDone(stage.name, done.number, tuple(done.new.tolist()), done.total)
                    await asyncio.sleep(0)
                expansion = worker.answer(expansion, growing[0])
            else:
                (expansion,) = await self._run(stage, worker, [expansion])
            yield StageDone(stage.name, time.perf_counter() - started, len(expansion.ranking))
        yield expansion

    def _stages(self, route: str, expansions: Sequence[Expansion]) -> tuple[Stage, ...]:
        return (*((Describe(),) if any(e.query.new for e in expansions) else ()), *ROUTES[route])

    def _worker(self, stage: Stage) -> Worker:
        key = (str(self._bundle.folder), stage)
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
        return [Expansion(e.query, e.ranking, {**e.seconds, **seconds}, e.degraded) for e in found]


MakeService = Callable[..., Service]
Running = Callable[[ASGIApp], AbstractContextManager[str]]
MakeClient = Callable[..., TestClient]


@pytest.fixture(scope="session")
def edition(bundle: Bundle) -> Edition:
    return Edition.open(bundle, {name: METHODS[name] for name in METHOD_NAMES}, ROUTES)


@pytest.fixture(scope="session")
def make_service(bundle: Bundle, edition: Edition, workspace: Path) -> MakeService:
    """Returns a service with the given settings (and dispatch)."""

    def make(dispatch: Dispatch | None = None, delay: float = 0, **settings: object) -> Service:
        checked = ServeSettings.model_validate({"workspace": str(workspace), **settings})
        metrics = Metrics()
        metrics.serving(edition.manifest)
        return Service(checked, edition, dispatch or LocalDispatch(bundle, metrics, delay), metrics)

    return make


@pytest.fixture(scope="session")
def make_client(make_service: MakeService) -> MakeClient:
    """Returns a client of the application with the given settings (and dispatch)."""

    def make(*given: object, **settings: object) -> TestClient:
        app = create_app(make_service(*given, **settings))
        return TestClient(app, raise_server_exceptions=False)

    return make


@pytest.fixture(scope="session")
def client(make_client: MakeClient) -> TestClient:
    return make_client()


@pytest.fixture(scope="session")
def running() -> Running:
    """Returns a context in which an application is served over a real connection; it gives the address."""

    @contextmanager
    def run(app: ASGIApp) -> Iterator[str]:
        config = uvicorn.Config(app, port=0, log_level="warning", log_config=None, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.005)
            (port,) = {socket.getsockname()[1] for one in server.servers for socket in one.sockets}
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join(5)

    return run
