"""What was added and deleted is exported, imported, and dropped by the service of the next bundle."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from urllib.parse import quote

import numpy as np
from fastapi.testclient import TestClient

from engine.overlay.state import lay_over
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from serve.http.overlay_service import OverlayService
from serve.http.routes import create_app
from serve.operations.overlay import entries_of, export
from serve.overlay.store import OverlayStore
from serve.stores import LocalStore
from tests.support.bundles import publish_vectors
from tests.support.corpora import jsonl, run_import
from tests.support.encoders import write_encoder
from tests.support.services import open_snapshot, service_maker

NAMES = ["Oslo", "Rome", "Cairo"]


def bundle_of(root: Path, names: list[str], entities: str = "") -> Bundle:
    """Publish a bundle of names with vectors at random, an encoder, and the table of a corpus if given."""

    def more(staged: Path) -> None:
        write_encoder(staged / "encoder", 8)
        if entities:
            shutil.copy(entities, staged / "entities.parquet")

    vectors = np.random.default_rng(0).normal(size=(len(names), 8))
    return publish_vectors(Workspace.open(root), names, {"mask": vectors}, more=more)


def served(bundle: Bundle, file: Path) -> tuple[TestClient, OverlayService]:
    opened = Bundle(bundle.manifest, bundle.folder, workspace=bundle.workspace)
    lay_over(opened)
    service = service_maker(open_snapshot(opened), opened)()
    overlay = OverlayService(service, LocalStore(OverlayStore, file))
    return TestClient(create_app(service, overlay=overlay)), overlay


def put(client: TestClient, name: str, description: str, land: str) -> None:
    sentences = [f"They walked to {name}."]
    body = {"sentences": sentences, "description": description, "attributes": {"land": [land]}}
    assert client.put(f"/v1/entities/{quote(name)}", json=body).status_code == 200


def test_the_next_bundle_takes_over_and_the_overlay_is_empty(tmp_path: Path) -> None:
    file, root = tmp_path / "overlay.sqlite", tmp_path / "w"
    said = [{"entity": name, "sentence": f"We saw {name} on day {day}."} for name in NAMES for day in (1, 2)]
    run_import(root, jsonl(tmp_path / "a.jsonl", said), "jsonl")
    client, _ = served(bundle_of(root, NAMES), file)
    for name, land in (("Lima", "Peru"), ("Rome", "Italy"), ("Kyoto", "Japan")):
        put(client, name, f"A city of {land}.", land)
    for name in ("Cairo", "Kyoto"):
        assert client.delete(f"/v1/entities/{name}").status_code == 200

    assert export(entries_of(OverlayStore(file)), tmp_path / "changes") == (2, 1)
    put(client, "Oslo", "Sent after the export.", "Norway")
    grown = run_import(root, tmp_path / "changes", "jsonl", update=True)

    assert [(one["name"], one["removed"], one["description"]) for one in grown.entities] == [
        ("Oslo", False, None),
        ("Rome", False, "A city of Italy."),
        ("Cairo", True, None),
        ("Lima", False, "A city of Peru."),
    ]
    counts = grown.manifest.counts
    assert (counts.mentions, counts.removed, counts.entities_removed, counts.quarantined) == (6, 2, 1, 0)
    names = [one["name"] for one in grown.entities]
    built = bundle_of(root, names, Workspace.open(root).entities.path)
    later, overlay = served(built, file)
    asyncio.run(overlay.look())

    listed = later.get("/v1/overlay").json()
    assert [one["name"] for one in listed["entries"]] == ["Oslo"], "the bundle knows another one"
    assert (listed["merged"]["bundle"], listed["merged"]["entities"]) == (built.id, 4)
    assert later.get("/v1/entities/Lima").json()["id"] == 3
    assert later.get("/v1/entities/Oslo").json()["id"] >= len(names)
    assert later.get("/v1/entities/Cairo").status_code == 404
