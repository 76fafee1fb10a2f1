"""The deployments: one host for stages, and the ingress that leads queries through them.

The ingress awaits one deployment after the other: responses passed on unawaited can hang, and only
a caller that holds the rows can send them again when a replica dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle

from engine.bundle import Bundle
from engine.stages.base import Stage
from engine.workspace import Workspace
from serve.api import create_app
from serve.errors import UnavailableError
from serve.plan import Hop
from serve.runner import Row, StageRunner, Task
from serve.service import Service
from serve.settings import ServeSettings

logger = logging.getLogger("seedset.serve")

ATTEMPTS = 4
FIRST_PAUSE_S = 0.1
LOST = (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError)
"""A replica was lost, with or without our rows. A query changes nothing, so it may run twice."""


class StageHost:
    """A deployment's replica: stages of one bundle behind one queue."""

    def __init__(self, settings: ServeSettings, bundle_id: str, stages: Sequence[Stage]) -> None:
        bundle = Bundle.open(Workspace.open(settings.workspace), bundle_id)
        self._runner = StageRunner(bundle, stages, settings.max_batch_size)
        # One thread: the event loop stays free, and batches do not fight for cores.
        self._thread = ThreadPoolExecutor(1, "stages")
        self._together.set_max_batch_size(settings.max_batch_size)  # type: ignore[attr-defined]
        self._together.set_batch_wait_timeout_s(settings.batch_wait_ms / 1000)  # type: ignore[attr-defined]

    async def run(self, task: Task) -> list[Row]:
        """Return the task's rows after its chain of stages (:mod:`serve.runner`)."""
        rows: list[Row] = await self._together(task)
        return rows

    @serve.batch
    async def _together(self, tasks: list[Task]) -> list[list[Row]]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._runner.run, tasks)


class HandleDispatch:
    """Leads rows through a method's deployments, with bounded retries where a replica dies."""

    def __init__(
        self,
        routes: Mapping[str, Sequence[Hop]],
        handles: Mapping[str, DeploymentHandle],
        max_batch_size: int,
    ) -> None:
        self._routes, self._handles, self._max = routes, handles, max_batch_size

    async def __call__(self, method: str, rows: Sequence[Row], deadline: float) -> list[Row]:
        """Return a row for each row, in order; large requests are cut: replicas share them."""
        parts = [rows[start : start + self._max] for start in range(0, len(rows), self._max)]
        done = await asyncio.gather(*(self._lead(method, part, deadline) for part in parts))
        return [row for part in done for row in part]

    async def _lead(self, method: str, rows: Sequence[Row], deadline: float) -> list[Row]:
        """Take rows from stage to stage; one that failed goes no further."""
        answers = list(rows)
        alive = list(range(len(answers)))
        for name, chain in self._routes[method]:
            task = Task(chain, [answers[place] for place in alive], deadline)
            for place, row in zip(alive, await self._call(name, task), strict=True):
                answers[place] = row
            alive = [place for place in alive if "failed" not in answers[place]]
            if not alive:
                break
        return answers

    async def _call(self, name: str, task: Task) -> list[Row]:
        for attempt in range(ATTEMPTS):
            try:
                rows: list[Row] = await self._handles[name].run.remote(task)
                return rows
            except BackPressureError:
                raise UnavailableError(f"stage {name} has too many requests waiting; try later") from None
            except LOST as error:
                logger.warning("stage %s, attempt %d of %d: %s", name, attempt + 1, ATTEMPTS, error)
                await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
        raise UnavailableError(f"stage {name} does not answer; try later")


class Ingress:
    """The HTTP deployment: holds the vocabulary and the way through the stages, and no model."""

    def __init__(
        self,
        settings: ServeSettings,
        bundle_id: str,
        methods: Mapping[str, str],
        default: str,
        routes: Mapping[str, Sequence[Hop]],
        handles: Mapping[str, DeploymentHandle],
    ) -> None:
        bundle = Bundle.open(Workspace.open(settings.workspace), bundle_id)
        dispatch = HandleDispatch(routes, handles, settings.max_batch_size)
        self._service = Service(settings, bundle.manifest, bundle.vocabulary, methods, default, dispatch)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service)
