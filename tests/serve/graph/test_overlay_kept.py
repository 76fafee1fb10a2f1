"""An overlay outlives the bundle that it was written over, and the replicas that hold it; without Ray."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from engine.methods import METHODS
from engine.overlay.state import lay_over
from engine.storage.bundle import Bundle, current_id
from engine.storage.workspace import Workspace
from serve.graph import deployments as hosts
from serve.graph.admission import Admission
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.bundle_watcher import BundleWatcher
from serve.graph.deployments import StageHost
from serve.graph.dispatch import HandleDispatch
from serve.graph.plan import plan
from serve.http.overlay_requests import UpsertRequest
from serve.http.overlay_service import OverlayService
from serve.http.requests import ExpandRequest
from serve.http.service import Service
from serve.http.trace import Trace
from serve.overlay.store import OverlayStore
from serve.settings import ServeSettings
from serve.stores import LocalStore
from serve.telemetry.metrics import Metrics
from tests.support.bundles import publish_vectors
from tests.support.encoders import write_encoder

METHOD = {"retexpan": METHODS["retexpan"]}
NAMES = [f"entity {i}" for i in range(30)]


def published(root: Path, seed: int) -> Bundle:
    """A bundle with an encoder of its own: what is added has other vectors in each."""
    vectors = np.random.default_rng(seed).normal(size=(len(NAMES), 8))
    return publish_vectors(
        Workspace.open(root), NAMES, {"mask": vectors}, more=lambda to: write_encoder(to / "encoder", 8, seed)
    )


class Served:
    """An application in this process: an ingress, one replica of the stages, the overlay's store."""

    def __init__(self, bundle: Bundle, file: Path) -> None:
        self.settings = ServeSettings(workspace=str(bundle.folder.parent.parent))
        self.plan, self.file, metrics = plan(bundle, METHOD, self.settings), file, Metrics()
        self.store = LocalStore(OverlayStore, file)
        self.host: StageHost | None = None
        handles = {one.name: self._handle() for one in self.plan.deployments}
        dispatch = HandleDispatch(self.plan, handles, Admission(9, 9), metrics, self._version)
        self.service = Service(self.settings, self.snapshot(bundle.id), dispatch, metrics)
        self.overlay = OverlayService(self.service, self.store)
        workspace = Workspace.open(self.settings.workspace)
        self.watcher = BundleWatcher(
            self.service, metrics, lambda: current_id(workspace), self.snapshot, self.prepare
        )

    def _version(self, bundle: str) -> int:
        return self.overlay.version(bundle)

    def snapshot(self, bundle_id: str) -> BundleSnapshot:
        bundle = Bundle.open(Workspace.open(self.settings.workspace), bundle_id)
        lay_over(bundle)
        self.opened = BundleSnapshot.open(bundle, METHOD, self.plan.routes)
        return self.opened

    def _handle(self) -> DeploymentHandle:
        async def run(task: Any) -> Any:
            if self.host is None:
                raise RayActorError
            return await self.host.run(task)

        run_remote = SimpleNamespace(remote=run)
        return cast(DeploymentHandle, SimpleNamespace(run=run_remote, options=lambda stream: None))

    async def start_stages(self) -> None:
        """Start a replica of the stages, which knows nothing yet, over the store as it is on the disk."""

        async def do(operation: str, given: tuple[Any, ...]) -> Any:
            return await self.store(operation, *given)

        handle = SimpleNamespace(do=SimpleNamespace(remote=do))
        host = StageHost.__new__(StageHost)
        await cast(Any, host).__init__(
            self.settings, self.service.snapshot.id, self.plan.deployments[0], (), handle
        )
        self.host = host

    async def prepare(self, bundle_id: str) -> dict[str, str]:
        """Open a bundle in the replica, then what was added is encoded for it; as the ingress does."""
        assert self.host is not None
        wrong = await self.host.prepare(bundle_id)
        await self.overlay.settle(self.opened)
        return {"stages": wrong}

    async def expand(self) -> list[tuple[str, float]]:
        """Return what is like a seed of the bundle and the one that was added: names and scores."""
        for seed in ("Atlantia", NAMES[0]):
            asked = ExpandRequest(positive=[seed], top_k=50, method="retexpan")
            found = await self.service.expand(asked, Trace("r"))
            assert not found["degraded"], found
            if seed == "Atlantia":
                assert found["bundle"] == self.service.snapshot.id
                near = [(one["name"], one["score"]) for one in found["results"]]
                continue
            assert "Atlantia" in [one["name"] for one in found["results"]]
            assert NAMES[3] not in [one["name"] for one in found["results"]], "it was deleted"
        return near


def test_what_was_added_is_ranked_after_a_swap_and_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "configure_logs", lambda: None)
    root, file = tmp_path / "w", tmp_path / "overlay.sqlite"
    first = published(root, 0)

    async def go() -> None:
        served = Served(first, file)
        await served.start_stages()
        sentences = UpsertRequest(sentences=["The king of Atlantia came."])
        made = await served.overlay.put("Atlantia", sentences, "ada", Trace("r"))
        await served.overlay.delete(NAMES[3], "ada")
        assert made["id"] == len(NAMES)
        before = await served.expand()

        served.host = None
        await served.start_stages()
        assert await served.expand() == before, "bit for bit, by a replica that read the store anew"

        second = await asyncio.to_thread(published, root, 1)
        await served.watcher.check()
        assert served.service.snapshot.id == second.id
        await served.overlay.look()
        after = await served.expand()
        assert after != before, "by the vectors of the encoder of that bundle"
        assert {name for name, _ in after} == {name for name, _ in before}

        served.host = None
        await served.start_stages()
        assert await served.expand() == after

        again = Served(second, file)  # all of it, with nothing left but the file
        await again.start_stages()
        await again.overlay.follow_of(again.service.snapshot)
        assert await again.expand() == after

    asyncio.run(go())
