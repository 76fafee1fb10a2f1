"""A service in this process, and (slow) one real Serve application for the whole session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from engine.bundle import Bundle
from engine.methods import METHODS
from serve.api import create_app
from serve.plan import plan
from serve.runner import Row, StageRunner, Task
from serve.service import Service
from serve.settings import ServeSettings
from tests.support.bundles import method_bundle

METHOD_NAMES = ("retexpan", "retexpan+cds", "retexpan-negative")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("serve-workspace"))


@pytest.fixture(scope="session")
def workspace(bundle: Bundle) -> Path:
    return bundle.folder.parent.parent


class LocalDispatch:
    """The stages in this process; ``delay`` seconds pass before each answer."""

    def __init__(self, bundle: Bundle, settings: ServeSettings, delay: float = 0) -> None:
        layout = plan({name: METHODS[name] for name in METHOD_NAMES}, settings)
        self._routes, self._delay = layout.routes, delay
        self._runner = StageRunner(bundle, layout.units[0].stages, settings.max_batch_size)

    async def __call__(self, method: str, rows: Sequence[Row], deadline: float) -> list[Row]:
        await asyncio.sleep(self._delay)
        ((_, chain),) = self._routes[method]
        return self._runner.run([Task(chain, rows, deadline)])[0]


MakeClient = Callable[..., TestClient]


@pytest.fixture
def make_client(bundle: Bundle, workspace: Path) -> MakeClient:
    """Returns a client of the application with the given settings (and dispatch)."""

    def make(dispatch: object = None, delay: float = 0, **settings: object) -> TestClient:
        checked = ServeSettings.model_validate({"workspace": str(workspace), **settings})
        runs = dispatch or LocalDispatch(bundle, checked, delay)
        methods = {name: str(METHODS[name]) for name in METHOD_NAMES}
        service = Service(checked, bundle.manifest, bundle.vocabulary, methods, "retexpan", runs)
        return TestClient(create_app(service))

    return make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
