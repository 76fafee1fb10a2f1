"""What stands behind the ingress, without Ray: the plan's deployments, each a runner in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager

from fastapi.testclient import TestClient

from engine.query import Expansion
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import Plan, plan
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.http.routes import create_app
from serve.http.service import Service
from serve.messages import Outcome, Progress, Task
from serve.settings import ServeSettings
from serve.telemetry.metrics import Metrics


class RunnerDispatch:
    """A dispatch over runners, as the replicas of the deployments have them."""

    def __init__(self, bundle: Bundle, laid_out: Plan) -> None:
        self._plan = laid_out
        self._opened = {d.name: OpenedBundle.open(bundle, d.stages) for d in laid_out.deployments}
        self._runners = {d.name: StageRunner(d.stages, [64] * len(d.stages)) for d in laid_out.deployments}

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        outcomes: list[Outcome] = list(expansions)
        for name, chain in self._plan.calls(route, any(e.query.new for e in expansions)):
            alive = {i: o for i, o in enumerate(outcomes) if isinstance(o, Expansion)}
            job = Job(Task(bundle, chain, list(alive.values()), request_id), self._opened[name])
            self._runners[name].submit(job)
            await asyncio.wrap_future(job.done)
            for place, outcome in zip(alive, job.reply().outcomes, strict=True):
                outcomes[place] = outcome
        return outcomes

    def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        raise NotImplementedError

    def close(self) -> None:
        """End the runners."""
        for runner in self._runners.values():
            runner.close()


@contextmanager
def http_client(bundle: Bundle, methods: Mapping[str, Pipeline], **settings: object) -> Iterator[TestClient]:
    """Yield a client of the HTTP application over a bundle and methods: all of it but Ray."""
    workspace = str(bundle.folder.parent.parent)
    checked = ServeSettings.model_validate({"workspace": workspace, **settings})
    laid_out = plan(bundle, methods, checked)
    dispatch = RunnerDispatch(bundle, laid_out)
    snapshot = BundleSnapshot.open(bundle, methods, laid_out.routes)
    try:
        yield TestClient(create_app(Service(checked, snapshot, dispatch, Metrics())))
    finally:
        dispatch.close()
