"""The worlds that all tests of serving share: two bundles, made once, and a service over the first."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from engine.storage.bundle import Bundle
from engine.storage.publishing import point_to
from engine.storage.workspace import Workspace
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.routes import create_app
from serve.telemetry import logs
from tests.support.bundles import method_bundle
from tests.support.services import MakeClient, MakeService, open_snapshot, service_maker


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Two bundles of the same names and other vectors in one workspace; the first is current."""
    root = tmp_path_factory.mktemp("serve-workspace")
    first, second = method_bundle(root), method_bundle(root, seed=1)
    point_to(Workspace.open(root), first.id)
    return first, second


@pytest.fixture(scope="session")
def bundle(bundles: tuple[Bundle, Bundle]) -> Bundle:
    return bundles[0]


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Each test finds the program's logger unconfigured: what opens a replica configures it for good."""
    root = logging.getLogger(logs.NAME)
    yield
    root.setLevel(logging.NOTSET)
    root.handlers, root.propagate = [], True


@pytest.fixture(scope="session")
def snapshot(bundle: Bundle) -> BundleSnapshot:
    return open_snapshot(bundle)


@pytest.fixture(scope="session")
def make_service(snapshot: BundleSnapshot, bundle: Bundle) -> MakeService:
    """Returns a service with the given settings (and dispatch)."""
    return service_maker(snapshot, bundle)


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
