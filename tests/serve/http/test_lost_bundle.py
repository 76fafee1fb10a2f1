"""What is answered once the folder of the bundle that is served is gone or changed, and when it is back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from engine.catalogue.sentences import SENTENCES
from engine.storage.bundle import Bundle
from serve.http.routes import create_app
from tests.support.services import open_snapshot, service_maker

READING = [
    ("/v1/expand", {"positive": [1], "explain": True}),
    ("/v1/entities/entity 7", None),
    ("/v1/bundles/current/entities/7", None),
    ("/v1/images/7/0", None),
]
"""Requests whose answers are read from the bundle's folder."""


@pytest.fixture
def copied(bundle: Bundle, tmp_path: Path) -> Bundle:
    """The bundle in a folder that may be harmed."""
    folder = tmp_path / "bundles" / bundle.id
    shutil.copytree(bundle.folder, folder)
    return Bundle(bundle.manifest, folder)


@pytest.fixture
def client(copied: Bundle) -> TestClient:
    make = service_maker(open_snapshot(copied), copied)
    client = TestClient(create_app(make()), raise_server_exceptions=False)
    for path, body in READING[:3]:  # stages open what they need
        assert (client.post(path, json=body) if body else client.get(path)).status_code == 200
    return client


def remove(folder: Path) -> None:
    shutil.rmtree(folder)


def cut_off(folder: Path) -> None:
    file = folder / SENTENCES
    file.write_bytes(file.read_bytes()[:100])


def replace_by_another(folder: Path) -> None:
    (folder / SENTENCES).unlink()
    (folder / SENTENCES).mkdir()


@pytest.mark.parametrize("harm", [remove, cut_off, replace_by_another])
def test_what_cannot_be_read_is_503_with_the_reason_and_the_service_not_ready(
    client: TestClient, copied: Bundle, harm: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert callable(harm)
    monkeypatch.setattr("serve.http.service.READY_S", -1.0)
    assert client.get("/readyz").json()["stages"] == {"bundle": "ok"}
    kept = copied.folder.with_name("kept")
    shutil.copytree(copied.folder, kept)
    harm(copied.folder)
    for path, body in READING:
        answer = client.post(path, json=body) if body else client.get(path)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "bundle"), path
        assert f"bundle {copied.id}: '{SENTENCES}' cannot be read any more" in error["message"]
        assert "seedset bundles --use" in error["message"]
        assert str(copied.folder.parent) not in error["message"], (
            "paths of the machine are no caller's business"
        )
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert copied.id in ready.json()["stages"]["bundle"]
    batch = client.post("/v1/expand/batch", json={"queries": [READING[0][1], {"positive": [1]}]}).json()
    assert batch["results"][0]["error"]["code"] == "bundle"
    assert batch["results"][1]["results"], "what is in memory is answered"
    events = client.post("/v1/expand/stream", json=READING[0][1]).text
    assert '"code":"bundle"' in events

    shutil.rmtree(copied.folder, ignore_errors=True)
    kept.rename(copied.folder)
    assert client.get("/readyz").status_code == 200
    for path, body in READING[:3]:
        assert (client.post(path, json=body) if body else client.get(path)).status_code == 200
