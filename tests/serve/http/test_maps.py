"""A map of entities over HTTP: where they lie, what each is, and what is wrong with a request."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.retrieval.opening import open_index
from engine.retrieval.plane import principal_plane
from engine.storage.bundle import Bundle
from serve.graph.plan import MAP
from serve.http.requests import MAX_MAPPED
from serve.http.routes import create_app
from tests.support.services import MakeClient, MakeService

ASKED = {"positive": ["entity 1", "entity 2"], "negative": ["entity 3"], "entities": [7, "entity 2", 5]}


@pytest.fixture(scope="module")
def client(make_client: MakeClient) -> TestClient:
    return make_client()


def test_entities_lie_where_their_principal_components_are(client: TestClient, bundle: Bundle) -> None:
    found = client.post("/v1/map", json=ASKED).json()
    assert found["bundle"] == bundle.id
    points = found["points"]
    assert [(p["id"], p["side"]) for p in points] == [
        *((1, "positive"), (2, "positive"), (3, "negative"), (7, ""), (5, "")),
    ]
    plane = principal_plane(open_index(bundle, "mask").vectors_of([1, 2, 3, 5, 7]))
    by_id = {p["id"]: (p["x"], p["y"], p["off"]) for p in points}
    np.testing.assert_allclose([by_id[i] for i in (1, 2, 3, 5, 7)], np.column_stack(plane), atol=1e-5)
    shown = (plane.x**2 + plane.y**2).sum()
    assert found["shown"] == pytest.approx(shown / (shown + (plane.off**2).sum()), abs=1e-4)
    assert "explanation" not in points[0]
    other = {**ASKED, "entities": [5, 7]}
    again = {p["id"]: (p["x"], p["y"], p["off"]) for p in client.post("/v1/map", json=other).json()["points"]}
    assert again == by_id, "the same entities in another order lie in the same places"


def test_each_point_is_explained_by_its_nearest_seeds_and_sentences(client: TestClient) -> None:
    described = {"name": "Newland", "sentences": ["We went to Newland."]}
    asked = {**ASKED, "positive": ["entity 1", described], "explain": True}
    points = client.post("/v1/map", json=asked).json()["points"]
    assert [p["id"] for p in points] == [1, 3, 7, 2, 5], "a described seed has no place"
    for point in points:
        told = point["explanation"]
        assert told["nearest_positive"]["name"] in ("entity 1", "Newland")
        assert (told["nearest_negative"] or {}).get("name") == (None if point["id"] == 3 else "entity 3")
        assert told["sentences"]


@pytest.mark.parametrize(
    ("change", "status", "field"),
    [
        ({"entities": ["entity 1", "entty 2"]}, 422, "entities.1"),
        ({"positive": ["?"]}, 422, "positive.0"),
        ({"positive": [], "negative": []}, 422, "positive"),
        ({"negative": ["entity 1"]}, 422, "negative.0"),
        ({"entities": list(range(MAX_MAPPED + 1))}, 422, "entities"),
        ({"entity": [1]}, 422, "entity"),
        ({"bundle": "another"}, 409, "bundle"),
    ],
)
def test_what_cannot_be_laid_out_is_refused_in_its_place(
    client: TestClient, change: dict[str, object], status: int, field: str
) -> None:
    answer = client.post("/v1/map", json={**ASKED, **change})
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field)


def test_a_bundle_without_vectors_says_that_it_has_no_map(make_service: MakeService) -> None:
    service = make_service()
    service.snapshot = replace(service.snapshot, routes=service.snapshot.routes - {MAP})
    answer = TestClient(create_app(service)).post("/v1/map", json=ASKED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_available")
