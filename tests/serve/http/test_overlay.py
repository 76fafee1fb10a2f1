"""Entities added and deleted over HTTP, while the bundle stays: found, ranked, told of, gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.overlay.state import lay_over
from engine.query import Expansion, NewEntity, Query
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.storage.bundle import Bundle
from serve.http.overlay_service import OverlayService
from serve.http.routes import create_app
from serve.overlay.store import OverlayStore
from serve.stores import LocalStore
from tests.support.services import open_snapshot, service_maker

SENTENCES = ["The king of Atlantia came.", "Some say that Atlantia is like the others."]
ATLANTIA = {
    "sentences": SENTENCES,
    "aliases": ["Sunken Land"],
    "description": "An island.",
    "attributes": {"sea": ["Atlantic"]},
}

Opened = tuple[TestClient, OverlayService]
Open = Callable[..., Opened]


@pytest.fixture
def open_client(bundle: Bundle, tmp_path: Path) -> Open:
    """Returns a client of a service of its own over a store, as it would be begun anew."""

    def make(of: Bundle = bundle, file: str = "overlay.sqlite", **settings: object) -> Opened:
        opened = Bundle(of.manifest, of.folder, workspace=of.workspace)
        lay_over(opened)
        service = service_maker(open_snapshot(opened), opened)(**settings)
        overlay = OverlayService(service, LocalStore(OverlayStore, tmp_path / file))
        client = TestClient(create_app(service, overlay=overlay))
        return client, overlay

    return make


@pytest.fixture
def client(open_client: Open) -> TestClient:
    return open_client()[0]


def put(client: TestClient, name: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    sentences = [f"The king of {name} came.", f"Some say that {name} is like the others."]
    answer = client.put(f"/v1/entities/{quote(name, safe='')}", json=body or {"sentences": sentences})
    assert answer.status_code == 200, answer.text
    return cast(dict[str, Any], answer.json())


def expand(client: TestClient, positive: Sequence[Any], **more: Any) -> dict[str, Any]:
    answer = client.post("/v1/expand", json={"positive": positive, "top_k": 500, **more})
    assert answer.status_code == 200, answer.text
    return cast(dict[str, Any], answer.json())


def names(answer: dict[str, Any]) -> list[str]:
    return [one["name"] for one in answer["results"]]


def test_an_entity_is_found_once_it_was_sent(client: TestClient) -> None:
    before = expand(client, ["entity 1"], method="retexpan-negative")
    assert "overlay" not in before
    etag = client.get("/v1/entities?search=atlantia").headers["etag"]

    made = put(client, "Atlantia", ATLANTIA)

    assert made == {
        **{"bundle": before["bundle"], "id": 500, "name": "Atlantia", "created": True, "replaces": False},
        **{"overlay": 1, "waiting": 0},
    }
    after = expand(client, ["entity 1"], method="retexpan-negative")
    assert after["overlay"] == 1
    assert [one for one in after["results"] if one["id"] != 500] != before["results"]  # ranks move on
    assert [one["name"] for one in after["results"] if one["id"] != 500] == names(before)
    assert "Atlantia" in names(after)
    found = client.get("/v1/entities?search=atlantia&fields=attributes,description")
    assert found.headers["etag"] != etag
    assert found.json()["entities"] == [
        {
            **{"id": 500, "name": "Atlantia", "aliases": ["Sunken Land"], "matched": "Atlantia"},
            **{"description": "An island.", "attributes": {"sea": ["Atlantic"]}},
        }
    ]
    (looked_up,) = client.post("/v1/entities/lookup", json={"names": ["sunken land"]}).json()["results"]
    assert looked_up["entity"]["id"] == 500
    told = client.get("/v1/entities/Atlantia").json()
    assert [one["text"] for one in told["sentences"]] == SENTENCES
    assert len(told["neighbours"]) == 10
    assert client.get(f"/v1/bundles/{before['bundle']}/entities/500").json() == told
    assert {"name": "sea", "values": [{"value": "Atlantic", "entities": 1}], "more": False} in client.get(
        "/v1/attributes"
    ).json()["attributes"]
    only = expand(client, ["entity 1"], method="retexpan-negative", filter={"sea": ["Atlantic"]})
    assert names(only) == ["Atlantia"]


def test_its_vectors_are_those_of_a_new_seed(open_client: Open, bundle: Bundle) -> None:
    client, overlay = open_client()
    put(client, "Atlantia", ATLANTIA)
    new = NewEntity("Atlantia", tuple(SENTENCES))
    (plain,) = EncodeNewEntities().open(bundle)([Expansion(Query("q", (-1,), new=(new,)))])
    layer = overlay._service.snapshot.layer
    assert layer is not None
    held = layer.state.added[500].encoded

    assert held.vectors.keys() == plain.query.new[0].vectors.keys()
    for view, vector in plain.query.new[0].vectors.items():
        np.testing.assert_array_equal(held.vectors[view], vector)
    as_new = expand(
        client, [{"name": "Thule", "sentences": [s.replace("Atlantia", "Thule") for s in SENTENCES]}]
    )
    as_added = expand(client, ["Atlantia"])
    scores = {one["name"]: one["score"] for one in as_new["results"]}
    assert all(scores[one["name"]] == one["score"] for one in as_added["results"][:100])
    assert names(as_new)[0] == "Atlantia"  # of the same sentences
    assert "Atlantia" not in names(as_added)


def test_a_deleted_entity_is_in_no_answer_and_found_by_no_name(client: TestClient) -> None:
    put(client, "Atlantia", ATLANTIA)
    methods = ("retexpan", "retexpan-negative")
    asked: dict[str, Any] = {"positive": ["entity 1", "entity 2"], "top_k": 20}
    best = [names(expand(client, method=method, **asked))[0] for method in methods]
    gone = {*best, "Atlantia"}

    for name in gone:
        answer = client.delete(f"/v1/entities/{quote(name)}")
        assert answer.status_code == 200, answer.text

    for method in methods:
        found = names(expand(client, method=method, **asked))
        assert not gone & set(found)
        assert len(found) == 20
    for name in gone:
        assert client.get(f"/v1/entities/{quote(name)}").status_code == 404
        refused = client.post("/v1/expand", json={"positive": [name]}).json()
        assert refused["error"]["code"] == "unknown_entity"
        assert client.delete(f"/v1/entities/{quote(name)}").status_code == 404
    near = client.get("/v1/entities/entity%201?neighbours=50").json()["neighbours"]
    assert not gone & {one["name"] for one in near}


def test_an_entity_of_the_bundle_can_be_replaced_and_comes_back_by_another_id(client: TestClient) -> None:
    made = put(client, "entity 7")
    assert (made["id"], made["replaces"], made["created"]) == (500, True, True)
    found = expand(client, ["entity 1"], method="retexpan-negative")
    assert names(found).count("entity 7") == 1
    assert 7 not in [one["id"] for one in found["results"]]
    again = put(client, "entity 7")
    assert (again["id"], again["created"], again["overlay"]) == (500, False, 2)

    assert client.delete("/v1/entities/entity%207").status_code == 200
    assert "entity 7" not in names(expand(client, ["entity 1"], method="retexpan-negative"))
    assert put(client, "entity 7")["id"] == 500


def test_methods_that_cannot_rank_what_was_added_say_so(client: TestClient) -> None:
    put(client, "Atlantia", ATLANTIA)
    client.delete("/v1/entities/entity%203")

    few = {"Generate.max_rounds": 1, "Generate.beams": 4}
    found = expand(client, ["entity 1", "Atlantia"], method="genexpan", exclude=[500, 2], options=few)

    assert not {"Atlantia", "entity 3", "entity 2"} & set(names(found))
    why = "does not rank entities that were added since the bundle was made (1)"
    assert found["degraded"] == [f"{stage}: {why}" for stage in ("Generate", "SegmentRerank")]


def test_an_added_entity_can_be_left_out(client: TestClient) -> None:
    put(client, "Atlantia", ATLANTIA)
    for left_out in ("Atlantia", 500, "sunken land"):
        found = expand(client, ["entity 1"], exclude=[left_out], method="retexpan-negative")
        assert "Atlantia" not in names(found)
    wrong = client.post("/v1/expand", json={"positive": ["Atlantia"], "negative": [500]}).json()["error"]
    assert (wrong["field"], wrong["message"]) == (
        "negative.0",
        "'Atlantia' is a positive and a negative seed at once",
    )
    explained = expand(client, ["Atlantia", "entity 1"], explain=True, top_k=3, method="retexpan-negative")
    assert len(explained["results"]) == 3


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("Atlantia", {"sentences": []}, "sentences"),
    ("Atlantia", {"sentences": ["Nobody is named here."]}, "sentences"),
    ("Atlantia", {}, "sentences"),
    ("Atlantia", {"sentences": ["Atlantia."] * 17}, "sentences"),
    ("Atlantia", {"sentences": ["Atlantia."], "colour": 1}, "colour"),
    ("ENTITY 1", {"sentences": ["ENTITY 1."]}, "given"),
    ("\u200b", {"sentences": ["x"]}, "given"),
]


def test_what_cannot_be_written_is_refused_with_its_place(client: TestClient) -> None:
    for name, body, field in REFUSED:
        answer = client.put(f"/v1/entities/{quote(name)}", json=body)
        assert (answer.status_code, answer.json()["error"]["field"]) == (422, field)
    assert client.get("/v1/overlay").json()["entries"] == []


def test_what_was_changed_is_listed_and_outlives_the_service(open_client: Open) -> None:
    client, _ = open_client()
    put(client, "Atlantia", ATLANTIA)
    client.delete("/v1/entities/entity%203")

    listed = client.get("/v1/overlay").json()

    assert listed["counts"] == {"added": 1, "deleted": 1}
    assert [(one["name"], one["kind"], one["replaces"]) for one in listed["entries"]] == [
        ("entity 3", "delete", True),
        ("Atlantia", "put", False),
    ]
    assert listed["entries"][1]["content"] == ATLANTIA
    again, overlay = open_client()
    asyncio.run(overlay.look())
    assert again.get("/v1/overlay").json() == listed
    assert "Atlantia" in names(expand(again, ["entity 1"], method="retexpan-negative"))
    assert again.get("/v1/entities/entity%203").status_code == 404


def test_another_bundle_gets_vectors_of_its_own(open_client: Open, bundles: tuple[Bundle, Bundle]) -> None:
    client, first = open_client()
    put(client, "Atlantia", ATLANTIA)
    client.delete("/v1/entities/entity%203")
    later, second = open_client(bundles[1])

    asyncio.run(second.look())

    assert later.get("/v1/entities/Atlantia").json()["bundle"] == bundles[1].id
    assert later.get("/v1/entities/entity%203").status_code == 404
    vectors = [one._service.snapshot.overlay.added[500].encoded.vectors["joint"] for one in (first, second)]
    assert not np.array_equal(vectors[0], vectors[1])


def test_without_a_file_changes_are_refused(make_client: Callable[..., TestClient]) -> None:
    client = make_client()
    answers = [
        client.put("/v1/entities/x", json={"sentences": ["x"]}),
        client.delete("/v1/entities/entity%201"),
        client.get("/v1/overlay"),
    ]
    assert [(one.status_code, one.json()["error"]["code"]) for one in answers] == [(404, "not_available")] * 3
