"""The HTTP interface without Ray: answers, errors, limits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.bundle import Bundle
from engine.errors import BundleError
from engine.methods import METHODS
from engine.query import Expansion, Query, Ranking, to_rows
from serve.runner import Row, failure
from tests.serve.conftest import MakeClient


def test_an_answer_is_the_local_runtimes_ranking_with_names(client: TestClient, bundle: Bundle) -> None:
    body = {"positive": ["entity 1", 2], "negative": ["entity 3"], "top_k": 7, "id": "q"}
    answer = client.post("/v1/expand", json=body).json()
    (local,) = METHODS["retexpan"].open(bundle)([Query("q", (1, 2), (3,), 7)])
    assert [r["id"] for r in answer["results"]] == local.ranking.ids.tolist()
    assert np.float32([r["score"] for r in answer["results"]]).tolist() == local.ranking.scores.tolist()
    first = answer["results"][0]
    assert first["rank"] == 1
    assert first["name"] == f"entity {first['id']}"
    assert set(first["evidence"]) == {"positive", "negative", "segment"}
    assert (answer["id"], answer["method"], answer["bundle"]) == ("q", "retexpan", bundle.id)
    assert set(answer["seconds"]) == {"Retrieve", "SegmentRerank"}
    assert answer["degraded"] == []


def test_a_query_gets_an_id_and_fifty_entities_unless_it_says_otherwise(client: TestClient) -> None:
    answer = client.post("/v1/expand", json={"positive": [0]}).json()
    assert answer["id"]
    assert len(answer["results"]) == 50


@pytest.mark.parametrize(
    ("body", "status", "kind", "words"),
    [
        ({"positive": ["entty 1"]}, 422, "unknown_entity", "unknown entity 'entty 1'"),
        ({"positive": [100_000]}, 422, "unknown_entity", "100000"),
        ({"positive": [1], "negative": ["entity 1"]}, 422, "query", "'entity 1' is a positive and"),
        ({"positive": []}, 422, "query", "at least one positive seed"),
        ({"positive": [1], "top_k": 0}, 422, "query", "must lie in 1..1000"),
        ({"positive": [1], "top_k": 1001}, 422, "query", "must lie in 1..1000"),
        ({"positive": [1], "method": "magic"}, 404, "unknown_method", "retexpan"),
        ({"positive": [1], "topk": 5}, 422, "invalid_request", "topk"),
        ({"positive": [True]}, 422, "invalid_request", "positive"),
        ({"positive": [-1]}, 422, "invalid_request", "positive"),
        ({"positive": [1.5]}, 422, "invalid_request", "positive"),
        ({"positive": "entity 1"}, 422, "invalid_request", "positive"),
        ({"positive": ["x" * 513]}, 422, "invalid_request", "512"),
        ({"positive": [1] * 101}, 422, "invalid_request", "100"),
        ({"positive": [1], "id": "x" * 129}, 422, "invalid_request", "id"),
        ({}, 422, "invalid_request", "positive"),
        ([], 422, "invalid_request", "body"),
    ],
)
def test_errors_say_what_is_wrong(
    client: TestClient, body: object, status: int, kind: str, words: str
) -> None:
    response = client.post("/v1/expand", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (status, kind)
    assert words in error["message"]
    assert "Traceback" not in response.text


def test_an_unknown_seed_names_the_closest(client: TestClient) -> None:
    error = client.post("/v1/expand", json={"positive": ["entty 12"]}).json()["error"]
    assert error["given"] == "entty 12"
    assert "entity 12" in error["closest"]


@pytest.mark.parametrize(
    "content", [b"{", b"", b'{"positive": [' + b"9" * 5000 + b"]}", b"[" * 100_000, b"\xff\xfe"]
)
def test_malformed_json_is_refused(client: TestClient, content: bytes) -> None:
    response = client.post("/v1/expand", content=content, headers={"content-type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["error"]["message"]


def test_half_a_surrogate_pair_is_answered_in_json(client: TestClient) -> None:
    response = client.post(
        "/v1/expand",
        content=b'{"positive": ["\\ud800"]}',
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 422
    assert response.json()["error"]["message"]


def test_a_body_above_the_limit_is_refused_announced_or_not(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=2000)
    large = b'{"positive": ["' + b"x" * 4000 + b'"]}'
    for content in (large, iter([large[:1000], large[1000:]])):
        response = client.post("/v1/expand", content=content, headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert response.json()["error"]["type"] == "too_large"


def test_a_batch_answers_the_good_and_explains_the_bad(client: TestClient) -> None:
    queries = [
        {"positive": [1], "id": "good", "top_k": 3},
        {"positive": ["nobody at all"], "id": "unknown"},
        {"positive": [2], "method": "retexpan+cds", "top_k": 3},
        "not a query",
        {"positive": [3], "method": "magic"},
    ]
    response = client.post("/v1/expand/batch", json={"queries": queries})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [("error" in r) for r in results] == [False, True, False, True, True]
    assert results[0]["id"] == "good"
    assert results[1]["id"] == "unknown"
    assert results[2]["method"] == "retexpan+cds"
    assert results[4]["error"]["known"] == ["retexpan", "retexpan+cds", "retexpan-negative"]


@pytest.mark.parametrize("n", [0, 4])
def test_a_batch_has_a_size(make_client: MakeClient, n: int) -> None:
    response = make_client(max_queries=3).post("/v1/expand/batch", json={"queries": [{"positive": [1]}] * n})
    assert response.status_code == 422
    assert "1..3" in response.json()["error"]["message"]


def test_a_request_that_takes_too_long_gets_504(make_client: MakeClient) -> None:
    response = make_client(delay=5, timeout_s=0.05).post("/v1/expand", json={"positive": [1]})
    assert response.status_code == 504
    assert response.json()["error"]["type"] == "timeout"


class Broken:
    """A dispatch that fails in a given way."""

    def __init__(self, outcome: Exception | list[Row]) -> None:
        self._outcome = outcome

    async def __call__(self, method: str, rows: Sequence[Row], deadline: float) -> list[Row]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def test_an_error_of_ours_shows_an_id_that_is_in_the_log_and_no_more(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = make_client(Broken(ZeroDivisionError("secret"))).post("/v1/expand", json={"positive": [1]})
    error = response.json()["error"]
    assert (response.status_code, error["type"]) == (500, "internal")
    assert "secret" not in response.text
    assert error["id"] in caplog.text


def test_a_bundle_that_lacks_a_file_is_503(make_client: MakeClient) -> None:
    for outcome in (BundleError("no lm"), [failure("bundle", "no lm", 503)]):
        response = make_client(Broken(outcome)).post("/v1/expand", json={"positive": [1]})
        assert response.status_code == 503
        assert response.json()["error"] == {"type": "bundle", "message": "no lm"}


def test_numbers_that_are_none_become_null(make_client: MakeClient) -> None:
    ranking = Ranking(np.int32([5]), np.float32([math.inf]), {"negative": np.float32([math.nan])})
    rows = to_rows([Expansion(Query("q", (1,)), ranking, {}, ("a note",))])
    answer = make_client(Broken(rows)).post("/v1/expand", json={"positive": [1]}).json()
    assert answer["results"][0]["score"] is None
    assert answer["results"][0]["evidence"] == {"negative": None}
    assert answer["degraded"] == ["a note"]


def test_the_catalogue(client: TestClient, bundle: Bundle) -> None:
    found = client.get("/v1/entities", params={"prefix": "ENTITY 49", "limit": 3}).json()
    assert [e["name"] for e in found["entities"]] == ["entity 49", "entity 490", "entity 491"]
    for given in ("entity 7", "7"):
        assert client.get(f"/v1/entities/{given}").json()["id"] == 7
    missing = client.get("/v1/entities/entty 7")
    assert missing.status_code == 404
    assert "entity 7" in missing.json()["error"]["closest"]
    methods = client.get("/v1/methods").json()
    assert methods["default"] == "retexpan"
    assert methods["methods"][0] == {"name": "retexpan", "description": str(METHODS["retexpan"])}
    described = client.get("/v1/bundle").json()
    assert (described["id"], described["entities"]) == (bundle.id, 500)
    assert client.get("/healthz").json() == {"status": "ok", "bundle": bundle.id}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/expand", 405),
        ("GET", "/v1/entities?limit=0", 422),
        ("GET", "/v1/entities?limit=x", 422),
        ("GET", f"/v1/entities?prefix={'x' * 600}", 422),
    ],
)
def test_every_error_is_json(client: TestClient, method: str, path: str, status: int) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) >= {"type", "message"}
