"""Test what is served besides expansions: entities, methods, bundle, the page, the OpenAPI document."""

from __future__ import annotations

import gzip
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.methods import METHODS
from engine.query import Query
from engine.retrieval.opening import open_index
from engine.stages.options import offered
from engine.storage.bundle import Bundle
from engine.vocabulary import Found, Vocabulary
from examples.tables import load_table
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http import responses as answers
from serve.http.listings import looked_up
from serve.http.requests import ExpandRequest
from serve.http.resolve import LOOKUP_SUGGESTIONS
from serve.http.routes import COMPRESSED, create_app
from serve.http.static import FOLDER
from tests.support.services import METHOD_NAMES, MakeClient, service_maker


def test_the_catalogue(client: TestClient, bundle: Bundle) -> None:
    found = client.get("/v1/entities", params={"prefix": "ENTITY 49", "limit": 3}).json()
    assert [e["name"] for e in found["entities"]] == ["entity 49", "entity 490", "entity 491"]
    assert found["bundle"] == bundle.id
    for path in (
        "/v1/entities/entity 7",
        f"/v1/bundles/{bundle.id}/entities/7",
        "/v1/bundles/current/entities/7",
    ):
        about = client.get(path).json()
        assert (about["id"], about["name"], about["bundle"]) == (7, "entity 7", bundle.id)
    missing = client.get("/v1/entities/entty 7")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_entity")
    assert "entity 7" in missing.json()["error"]["suggestions"]
    methods = client.get("/v1/methods").json()
    assert methods["default"] == "retexpan"
    assert methods["methods"][0] == {
        "name": "retexpan",
        "description": str(METHODS["retexpan"]),
        "stages": ["Retrieve", "SegmentRerank"],
        "options": offered(METHODS["retexpan"].stages),
    }
    assert methods["unavailable"] == []
    described = client.get("/v1/bundle").json()
    assert (described["id"], described["entities"], described["refused"]) == (bundle.id, 500, None)
    assert described["methods"] == list(METHOD_NAMES)
    assert client.get("/v1/attributes").json()["attributes"][0] == {
        "name": "class",
        "values": [{"value": "common", "entities": 450}, {"value": "rare", "entities": 50}],
        "more": False,
    }
    assert client.get("/healthz").json() == {"status": "ok", "bundle": bundle.id}


def test_entities_are_searched_in_pages(client: TestClient) -> None:
    def names(**params: str | int) -> list[str]:
        return [found["name"] for found in client.get("/v1/entities", params=params).json()["entities"]]

    assert names(search="49 entity", limit=2) == ["entity 49", "entity 490"]
    assert names(search="49 entity", limit=2, offset=2) == ["entity 491", "entity 492"]
    assert names(search="enttiy 123")[0] == "entity 123"
    assert names(prefix="entity 49", limit=2, offset=1) == ["entity 490", "entity 491"]
    pages = [client.get("/v1/entities", params={"offset": at, "limit": 200}).json() for at in (0, 200, 400)]
    assert [page["more"] for page in pages] == [True, True, False]
    assert [one["id"] for page in pages for one in page["entities"]] == list(range(500))
    (found,) = client.get(
        "/v1/entities", params={"search": "entity 123", "fields": "attributes", "limit": 1}
    ).json()["entities"]
    assert found["matched"] == found["name"] == "entity 123"
    assert found["attributes"] == client.get("/v1/entities/entity 123").json()["attributes"]
    assert "description" not in found


def test_many_names_are_looked_up_at_once(client: TestClient, bundle: Bundle) -> None:
    found = client.post("/v1/entities/lookup", json={"names": ["ENTITY 7", "entty 12", "entity 7"]}).json()
    assert found["bundle"] == bundle.id
    first, unknown, again = found["results"]
    assert first["entity"] == again["entity"]
    assert (first["entity"]["id"], first["entity"]["name"]) == (7, "entity 7")
    assert (unknown["given"], unknown["entity"]) == ("entty 12", None)
    assert unknown["suggestions"][0]["name"] == "entity 12"
    assert first["suggestions"] == []
    assert [one["sought"] for one in found["results"]] == [False, True, False]
    refused = client.post("/v1/entities/lookup", json={"names": ["x"] * 1001})
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "names")


def test_what_is_like_an_unknown_name_is_looked_for_of_few_names_and_in_time(
    client: TestClient, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []

    def search(self: Vocabulary, text: str) -> Iterator[Found]:
        searched.append(text)
        return iter(())

    monkeypatch.setattr(Vocabulary, "search", search)
    names = [f"unknown {i}" for i in range(200)]
    results = client.post("/v1/entities/lookup", json={"names": names}).json()["results"]
    assert searched == names[:LOOKUP_SUGGESTIONS]
    assert [one["sought"] for one in results] == [True] * LOOKUP_SUGGESTIONS + [False] * 100
    looked_up(BundleSnapshot.open(bundle, {"retexpan": METHODS["retexpan"]}, []), names, timeout_s=0)
    assert len(searched) == LOOKUP_SUGGESTIONS, "no time is left"


def test_methods_that_are_not_available_say_why(bundle: Bundle) -> None:
    methods = {"retexpan": METHODS["retexpan"]}
    snapshot = BundleSnapshot.open(bundle, methods, ["retexpan"], {"chat": "SEEDSET_CHAT_URL is not set"})
    client = TestClient(create_app(service_maker(snapshot, bundle)()))
    found = answers.Methods.model_validate(client.get("/v1/methods").json())
    assert [(one.name, one.reason) for one in found.unavailable] == [("chat", "SEEDSET_CHAT_URL is not set")]
    asked = client.post("/v1/expand", json={"positive": [1], "method": "chat"})
    assert (asked.status_code, asked.json()["error"]["code"]) == (404, "unknown_method")
    assert "'chat' is not available here (SEEDSET_CHAT_URL is not set)" in asked.json()["error"]["message"]


def test_vectors_of_an_entity_are_seeds(client: TestClient, bundle: Bundle) -> None:
    asked: dict[str, int | str] = {"neighbours": 0, "vectors": "mask, joint"}
    known = client.get("/v1/entities/entity 7", params=asked).json()
    answers.EntityDetails.model_validate(known)
    for view in ("mask", "joint"):
        own = open_index(bundle, view).vectors_of([7])[0]
        np.testing.assert_allclose(known["vectors"][view], own, atol=1e-8)
    by_id = client.get(f"/v1/bundles/{bundle.id}/entities/7", params=asked).json()
    assert by_id["vectors"] == known["vectors"]
    seed = {"positive": [{"vector": known["vectors"]}], "top_k": 1}
    assert client.post("/v1/expand", json=seed).json()["results"][0]["id"] == 7
    error = client.get("/v1/entities/entity 7?vectors=mask,msk").json()["error"]
    assert (error["code"], error["field"]) == ("invalid_request", "vectors")
    assert "there is no view 'msk'; there are" in error["message"]
    assert "vectors" not in client.get("/v1/entities/entity 7?neighbours=0").json()


def test_what_is_known_of_an_entity(client: TestClient, bundle: Bundle) -> None:
    about = client.get("/v1/entities/entity 7", params={"sentences": 1, "neighbours": 3}).json()
    assert about["description"] == "The odd one of number 7."
    assert about["attributes"] == {"class": ["rare"], "parity": ["odd"]}
    assert about["sentences"] == [{"text": "Once entity 7 was here.", "start": 5, "end": 13}]
    (local,) = METHODS["retexpan-negative"].open(bundle)([Query("q", (7,), (), 3)])
    assert [n["id"] for n in about["neighbours"]] == local.ranking.ids.tolist()
    assert (
        np.array([n["similarity"] for n in about["neighbours"]], np.float32).tolist()
        == local.ranking.scores.tolist()
    )
    assert client.get("/v1/entities/entity 7?neighbours=0&sentences=0").json()["neighbours"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/expand", 405),
        ("GET", "/v1/expand/", 404),
        ("DELETE", "/v1/methods", 405),
        ("GET", "/v1/entities?limit=0", 422),
        ("GET", "/v1/entities?limit=x", 422),
        ("GET", "/v1/entities?limit=" + "9" * 5000, 422),
        ("GET", f"/v1/entities?prefix={'x' * 600}", 422),
        ("GET", "/v1/entities?prefix=%00", 422),
        ("GET", "/v1/entities?prefix=a&search=a", 422),
        ("GET", "/v1/entities?fields=image", 422),
        ("GET", "/v1/entities/", 422),
        ("GET", f"/v1/entities/{'x' * 600}", 422),
        ("GET", "/v1/entities/%00", 422),
        ("GET", "/v1/entities/%ED%A0%80", 404),
        ("GET", "/v1/entities/1?neighbours=51", 422),
        ("GET", "/v1/entities/7", 404),
        ("GET", "/v1/bundles/current/entities/500", 404),
        ("GET", "/v1/bundles/current/entities/entity 7", 422),
        ("GET", "/v1/bundles/current/entities/-1", 422),
        ("GET", "/v1/bundles/current/entities/" + "9" * 5000, 422),
        ("GET", "/v1/bundles/0123456789abcdef/entities/7", 409),
        ("GET", f"/v1/bundles/{'x' * 200}/entities/7", 422),
        ("GET", "/v1/images/1/0", 404),
        ("GET", "/v1/images/1/9", 422),
        ("GET", "/v1/images/-1/0", 422),
        ("GET", "/v1/images/" + "9" * 5000 + "/0", 422),
        ("GET", "/page/../api.py", 404),
        ("GET", "/page/%2e%2e%2fapi.py", 404),
        ("GET", "/page/..%5c..%5crun.py", 404),
        ("GET", "/page/%00", 404),
        ("GET", "/page/" + "x" * 5000, 404),
        ("GET", "/page/.", 404),
        ("POST", "/page/page.js", 405),
        ("GET", "/docs", 404),
    ],
)
def test_every_error_is_json(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    answers.ErrorAnswer.model_validate(response.json())


TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def test_the_page_comes_with_a_strict_policy(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == "default-src 'self'; frame-ancestors 'none'"
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    again = client.get("/", headers={"if-none-match": page.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (page.headers["cache-control"], again.headers["cache-control"]) == ("no-cache", "no-cache")
    assert again.headers["content-security-policy"]


def test_every_file_of_the_page_comes_whole_and_with_its_type(client: TestClient) -> None:
    files = sorted(FOLDER.iterdir())
    assert len(files) > 10
    for path in files:
        served = client.get(f"/page/{path.name}")
        assert served.content == path.read_bytes()
        assert served.headers["content-type"] == TYPES[path.suffix]
        head = client.head(f"/page/{path.name}")
        assert (head.status_code, head.content, head.headers["etag"]) == (200, b"", served.headers["etag"])
    assert 'route="/page/{name}",status="200"' in client.get("/metrics").text


def raw(client: TestClient, path: str, accepted: str) -> tuple[dict[str, str], bytes]:
    """Return an answer's headers, and its body as it crossed the wire."""
    with client.stream("GET", path, headers={"accept-encoding": accepted}) as response:
        return dict(response.headers), b"".join(response.iter_raw())


def test_large_answers_are_compressed_for_who_takes_it(client: TestClient) -> None:
    path = "/v1/entities?prefix=e&limit=100"
    small, body = raw(client, path, "gzip")
    assert "content-encoding" not in small
    assert len(body) < COMPRESSED
    plain, page = raw(client, "/page/page.css", "identity")
    told, packed = raw(client, "/page/page.css", "gzip, br")
    assert "content-encoding" not in plain
    assert (told["content-encoding"], told["content-length"]) == ("gzip", str(len(packed)))
    assert "accept-encoding" in told["vary"].lower()
    assert told["content-security-policy"]
    assert gzip.decompress(packed) == page == (FOLDER / "page.css").read_bytes()
    assert len(packed) < len(page) / 2


def test_a_large_answer_is_the_same_compressed_or_not(client: TestClient) -> None:
    body = {"positive": [1], "negative": [2], "top_k": 400, "explain": True, "id": "q"}
    answers = []
    for accepted in ("identity", "gzip"):
        response = client.post("/v1/expand", json=body, headers={"accept-encoding": accepted})
        assert response.headers.get("content-encoding", "identity") == accepted
        answers.append(response.json() | {"seconds": {}})
    assert answers[0] == answers[1]


REAL = [
    ("/v1/expand", {"positive": [1], "negative": [2], "explain": True, "top_k": 3}, answers.Answer),
    ("/v1/expand/batch", {"queries": [{"positive": [1]}, {"positive": ["?"]}, 1]}, answers.BatchAnswer),
    ("/v1/entities?prefix=e", None, answers.Entities),
    ("/v1/entities?search=7&fields=attributes,description", None, answers.Entities),
    ("/v1/entities/lookup", {"names": ["entity 7", "entty 7"]}, answers.LookedUp),
    ("/v1/entities/entity 7", None, answers.EntityDetails),
    ("/v1/bundles/current/entities/7", None, answers.EntityDetails),
    ("/v1/attributes", None, answers.Attributes),
    ("/v1/methods", None, answers.Methods),
    ("/v1/bundle", None, answers.BundleShape),
    ("/v1/caller", None, answers.CallerShape),
    ("/healthz", None, answers.Healthy),
    ("/readyz", None, answers.Ready),
]


@pytest.mark.parametrize(("path", "body", "shape"), REAL, ids=lambda one: one if isinstance(one, str) else "")
def test_answers_have_the_published_shape(
    client: TestClient, path: str, body: object, shape: type[answers.Shape]
) -> None:
    response = client.post(path, json=body) if body else client.get(path)
    assert response.status_code == 200
    shape.model_validate(response.json(), strict=True)


def test_the_document_holds_the_limits_and_examples_that_work(make_client: MakeClient) -> None:
    document = make_client(max_top_k=40, max_queries=3).get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    assert schemas["ExpandRequest"]["properties"]["top_k"]["maximum"] == 40
    assert schemas["BatchRequest"]["properties"]["queries"]["maxItems"] == 3
    (example,) = schemas["ExpandRequest"]["examples"]
    asked = ExpandRequest.model_validate(example)
    assert {*asked.positive, *asked.negative} <= set(load_table("countries")), "the demo's sample"
    for operations in document["paths"].values():
        for operation in operations.values():
            assert {"200", "401", "408", "413", "500"} <= set(operation["responses"])
