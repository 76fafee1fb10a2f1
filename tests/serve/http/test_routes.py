"""The HTTP interface without Ray: answers, errors, limits."""

from __future__ import annotations

import asyncio
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.methods import METHODS
from engine.query import Query
from engine.storage.bundle import Bundle
from serve.http import responses as answers
from serve.http.routes import create_app
from tests.support.services import MakeClient, MakeService

JSON = {"content-type": "application/json"}
NEW = {"name": "Atlantia", "sentences": ["Nobody has seen Atlantia since."]}


def test_an_answer_is_the_local_runtimes_ranking_with_names(client: TestClient, bundle: Bundle) -> None:
    body = {"positive": ["entity 1", 2], "negative": ["entity 3"], "top_k": 7, "id": "q"}
    answer = client.post("/v1/expand", json=body).json()
    (local,) = METHODS["retexpan"].open(bundle)([Query("q", (1, 2), (3,), 7)])
    assert [r["id"] for r in answer["results"]] == local.ranking.ids.tolist()
    assert (
        np.array([r["score"] for r in answer["results"]], np.float32).tolist()
        == local.ranking.scores.tolist()
    )
    first = answer["results"][0]
    assert first["rank"] == 1
    assert first["name"] == f"entity {first['id']}"
    assert set(first["evidence"]) == {"positive", "negative", "segment"}
    assert "explanation" not in first
    assert (answer["id"], answer["method"], answer["bundle"]) == ("q", "retexpan", bundle.id)
    assert set(answer["seconds"]) == {"Retrieve", "SegmentRerank"}
    assert answer["degraded"] == []


def test_a_query_gets_an_id_and_fifty_entities_unless_it_says_otherwise(client: TestClient) -> None:
    answer = client.post("/v1/expand", json={"positive": [0]}).json()
    assert answer["id"]
    assert len(answer["results"]) == 50


@pytest.mark.parametrize(
    ("body", "status", "code", "field", "words"),
    [
        ({"positive": [1, "entty 1"]}, 422, "unknown_entity", "positive.1", "'entty 1'; did you mean"),
        ({"positive": [100_000]}, 422, "unknown_entity", "positive.0", "100000"),
        (
            {"positive": [1], "negative": [2, "entity 1"]},
            422,
            "query",
            "negative.1",
            "'entity 1' is a positive",
        ),
        ({"positive": []}, 422, "invalid_request", "positive", "at least one"),
        ({"positive": [1], "top_k": 0}, 422, "invalid_request", "top_k", "greater than or equal to 1"),
        ({"positive": [1], "top_k": 1001}, 422, "invalid_request", "top_k", "more than 1000"),
        ({"positive": [1], "top_k": 10**30}, 422, "invalid_request", "top_k", "more than 1000"),
        ({"positive": [1], "method": "magic"}, 404, "unknown_method", "method", "retexpan"),
        ({"positive": [1], "topk": 5}, 422, "invalid_request", "topk", "not permitted"),
        ({"positive": [1], "negatives": [2]}, 422, "invalid_request", "negatives", "did you mean negative?"),
        ({"positive": [1, True]}, 422, "invalid_request", "positive.1", "valid integer"),
        ({"positive": [-1]}, 422, "invalid_request", "positive.0", "greater than or equal to 0"),
        ({"positive": [1.5]}, 422, "invalid_request", "positive.0", "a seed is a name, an entity id, or"),
        ({"positive": "entity 1"}, 422, "invalid_request", "positive", "list"),
        ({"positive": ["x" * 513]}, 422, "invalid_request", "positive.0", "512"),
        ({"positive": ["a\0b"]}, 422, "invalid_request", "positive.0", "NUL"),
        ({"positive": [1] * 101}, 422, "invalid_request", "positive", "100"),
        ({"positive": [1], "id": "x" * 129}, 422, "invalid_request", "id", "128"),
        ({"positive": [1], "deadline_ms": 0}, 422, "invalid_request", "deadline_ms", "equal to 1"),
        ({"positive": [{"name": "x"}]}, 422, "invalid_request", "positive.0.sentences", "required"),
        ({"positive": [NEW | {"x": 1}]}, 422, "invalid_request", "positive.0.x", "not permitted"),
        ({"positive": [NEW], "negative": [NEW]}, 422, "invalid_request", "negative.0", "twice"),
        (
            {"positive": [NEW | {"name": "ENTITY 7"}]},
            422,
            "invalid_request",
            "positive.0",
            "in the vocabulary as 'entity 7'; give it as a name",
        ),
        ({"positive": [1], "filter": {"clas": ["x"]}}, 422, "unknown_attribute", "filter.clas", "'class'"),
        ({"positive": [1], "filter": {"class": ["x"]}}, 422, "unknown_attribute", "filter.class", "'x'"),
        ({"positive": [1], "filter": {"class": []}}, 422, "invalid_request", "filter.class", "at least 1"),
        ({"positive": [1], "filter": {"a": 1}}, 422, "invalid_request", "filter.a", "list"),
        (
            {"positive": [1], "filter": {str(n): ["x"] for n in range(17)}},
            422,
            "invalid_request",
            "filter",
            "16",
        ),
        ({"positive": [1], "k" * 5000: 1}, 422, "invalid_request", "k" * 80 + "…", "not permitted"),
        ({}, 422, "invalid_request", "positive", "at least one"),
        ([], 422, "invalid_request", None, "object"),
    ],
)
def test_errors_say_what_is_wrong_and_where(
    client: TestClient, body: object, status: int, code: str, field: str | None, words: str
) -> None:
    response = client.post("/v1/expand", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["field"]) == (status, code, field)
    assert words in error["message"]
    assert len(response.text) < 2000
    answers.ErrorAnswer.model_validate(response.json())


@pytest.mark.parametrize(
    ("body", "suggestion"),
    [
        ({"positive": ["entty 12"]}, "entity 12"),
        ({"positive": [1], "filter": {"clas": ["x"]}}, "class"),
        ({"positive": [1], "filter": {"class": ["comon"]}}, "common"),
        ({"positive": [1], "method": "magic"}, "retexpan+cds"),
        ({"positive": [NEW | {"name": "entity 7"}]}, "entity 7"),
    ],
)
def test_errors_suggest_what_would_work(client: TestClient, body: object, suggestion: str) -> None:
    assert suggestion in client.post("/v1/expand", json=body).json()["error"]["suggestions"]


@pytest.mark.parametrize(
    ("content", "status", "field"),
    [
        (b"{", 400, None),
        (b"", 400, None),
        (b'{"positive": [' + b"9" * 5000 + b"]}", 400, None),
        (b"[" * 100_000, 400, None),
        (b'{"a":' * 50_000, 400, None),
        (b'{"positive": [NaN]}', 400, None),
        (b"\xff\xfe", 400, None),
        (b'{"positive": ["\\ud800"]}', 422, "positive.0"),
        (b'{"positive": [{"name": "\\udfff", "sentences": ["x"]}]}', 422, "positive.0.name"),
        (b'{"positive": [1], "filter": {"a": ["\\ud800"]}}', 422, "filter.a.0"),
        (b'{"positive": [1], "\\ud800": 1}', 422, None),
    ],
)
@pytest.mark.parametrize("path", ["/v1/expand", "/v1/expand/stream"])
def test_what_is_no_json_or_no_text_is_refused(
    client: TestClient, path: str, content: bytes, status: int, field: str | None
) -> None:
    response = client.post(path, content=content, headers=JSON)
    error = response.json()["error"]
    assert (response.status_code, error["field"]) == (status, field)
    assert error["code"] == {400: "malformed_json", 422: "invalid_request"}[status]


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b'{"positive": [1], "positive": [2]}', "positive"),
        (b'{"positive": [{"name": "x", "sentences": ["x"], "sentences": ["y"]}]}', "sentences"),
        (b'{"positive": [1], "filter": {"class": ["rare"], "class": ["common"]}}', "class"),
        (b'{"queries": [], "queries": [{"positive": [1]}]}', "queries"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(client: TestClient, content: bytes, field: str) -> None:
    path = "/v1/expand/batch" if b"queries" in content else "/v1/expand"
    response = client.post(path, content=content, headers=JSON)
    assert (response.status_code, response.json()["error"]["field"]) == (422, field)
    assert f"{field} is given a second time" in response.json()["error"]["message"]


def test_a_key_twice_in_one_query_of_a_batch_leaves_the_others(client: TestClient) -> None:
    content = b'{"queries": [{"id": "a", "positive": [1], "top_k": 1, "top_k": 2}, {"positive": [1]}]}'
    first, second = client.post("/v1/expand/batch", content=content, headers=JSON).json()["results"]
    assert (first["id"], first["error"]["field"]) == ("a", "top_k")
    assert second["results"]


@pytest.mark.parametrize(
    ("method", "path", "parameter", "words"),
    [
        ("GET", "/v1/entities?prefx=a", "prefx", "did you mean prefix?"),
        ("GET", "/v1/entities?prefix=a&prefix=b", "prefix", "a second time"),
        ("GET", "/v1/entities?prefix", None, ""),
        ("GET", "/v1/entities/1?sentence=2", "sentence", "did you mean sentences?"),
        ("GET", "/v1/images/1/0?size=2", "size", "there are "),
        *(("GET", f"/v1/{name}?x", "x", "has none") for name in ("attributes", "methods", "bundle")),
        *(("GET", f"/{name}?x=1", "x", "has none") for name in ("healthz", "readyz", "metrics")),
        *(("POST", f"/v1/expand{name}?top_k=5", "top_k", "has none") for name in ("", "/batch", "/stream")),
        ("GET", "/?utm_source=mail", None, ""),
    ],
)
def test_a_parameter_that_the_route_lacks_is_refused(
    client: TestClient, method: str, path: str, parameter: str | None, words: str
) -> None:
    response = client.request(method, path, json={"positive": [1]} if method == "POST" else None)
    assert response.status_code == (200 if parameter is None else 422)
    if parameter:
        error = response.json()["error"]
        assert (error["code"], error["field"]) == ("invalid_request", parameter)
        assert words in error["message"]


def test_a_body_must_say_that_it_is_json(client: TestClient) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        response = client.post("/v1/expand", content=b'{"positive": [1]}', headers={"content-type": kind})
        assert response.status_code == 422
        assert "application/json" in response.json()["error"]["message"]


def test_a_body_above_the_limit_is_refused_announced_or_not(make_client: MakeClient) -> None:
    client = make_client(max_body_bytes=2000)
    large = b'{"positive": ["' + b"x" * 4000 + b'"]}'
    for content in (large, iter([large[:1000], large[1000:]])):
        response = client.post("/v1/expand", content=content, headers=JSON)
        assert response.status_code == 413
        assert response.json()["error"]["code"] == "too_large"
    assert 'seedset_shed_total{reason="too_large"} 2.0' in client.get("/metrics").text


def ask_slowly(app: Any, chunks: list[bytes]) -> list[dict[str, Any]]:
    """Send chunks of a body, and never its end; return what is sent back."""
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return messages.pop(0) if messages else await asyncio.Event().wait()  # type: ignore[return-value]

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/expand", "headers": [], "query_string": b""}
    asyncio.run(app(scope, receive, send))
    return sent


def test_a_body_that_does_not_end_is_refused_in_time(make_service: MakeService) -> None:
    app = create_app(make_service(body_timeout_s=0.05))
    start, end = ask_slowly(app, [b'{"positive"', b": ["])
    assert start["status"] == 408
    assert json.loads(end["body"])["error"]["code"] == "slow_request"


def test_a_new_entity_is_a_seed_and_does_not_come_back(client: TestClient) -> None:
    answer = client.post("/v1/expand", json={"positive": [1, NEW], "top_k": 5, "explain": True}).json()
    assert len(answer["results"]) == 5
    near = [r["explanation"]["nearest_positive"] for r in answer["results"]]
    assert {(n["id"], n["name"]) for n in near} <= {(1, "entity 1"), (None, "Atlantia")}
    assert (None, "Atlantia") in {(n["id"], n["name"]) for n in near}


def test_a_filter_holds(client: TestClient) -> None:
    body = {"positive": [100], "top_k": 100, "filter": {"class": ["rare"], "parity": ["odd"]}}
    found = [r["id"] for r in client.post("/v1/expand", json=body).json()["results"]]
    assert sorted(found) == [i for i in range(50) if i % 2]


def test_an_explanation_names_seeds_and_shows_sentences(client: TestClient, bundle: Bundle) -> None:
    body = {"positive": [1, 2], "negative": [3], "top_k": 4, "explain": True}
    explained = client.post("/v1/expand", json=body).json()["results"]
    plain = client.post("/v1/expand", json=body | {"explain": False}).json()["results"]
    for one, other in zip(explained, plain, strict=True):
        why = one.pop("explanation")
        assert one == other
        assert why["nearest_positive"]["name"] in ("entity 1", "entity 2")
        assert why["nearest_negative"] == {
            "id": 3,
            "name": "entity 3",
            "similarity": one["evidence"]["negative"],
        }
        assert len(why["sentences"]) == 2
        sentence = why["sentences"][0]
        assert sentence["text"][sentence["start"] : sentence["end"]] == one["name"]
        assert why["images"] == []
    alone = client.post("/v1/expand", json={"positive": [1], "explain": True, "top_k": 1}).json()
    assert alone["results"][0]["explanation"]["nearest_negative"] is None


def test_a_batch_answers_the_good_and_explains_the_bad(client: TestClient) -> None:
    queries = [
        {"positive": [1], "id": "good", "top_k": 3},
        {"positive": ["nobody at all"], "id": "unknown"},
        {"positive": [2], "method": "retexpan+cds", "top_k": 3},
        "not a query",
        {"positive": [3], "method": "magic"},
        {"positive": [1], "id": 7},
    ]
    response = client.post("/v1/expand/batch", json={"queries": queries})
    assert response.status_code == 200
    results = response.json()["results"]
    assert [r.get("error", {}).get("code") for r in results] == [
        None,
        "unknown_entity",
        None,
        "invalid_request",
        "unknown_method",
        "invalid_request",
    ]
    assert [r["id"] for r in results if "error" in r] == ["unknown", None, None, None]
    assert results[0]["id"] == "good"
    assert results[2]["method"] == "retexpan+cds"


@pytest.mark.parametrize("n", [0, 4])
def test_a_batch_has_a_size(make_client: MakeClient, n: int) -> None:
    response = make_client(max_queries=3).post("/v1/expand/batch", json={"queries": [{"positive": [1]}] * n})
    assert response.status_code == 422
    assert "1..3" in response.json()["error"]["message"]


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "ü", "a\nb"])
def test_a_request_id_is_taken_or_made(client: TestClient, given: str) -> None:
    assert client.get("/healthz", headers={"x-request-id": "a" * 64}).headers["x-request-id"] == "a" * 64
    made = client.get("/healthz", headers={b"x-request-id": given.encode()}).headers["x-request-id"]
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_tokens_guard_all_but_the_page_and_what_watches(make_client: MakeClient) -> None:
    # sha256 of "open sesame".
    digest = "41ef4bb0b23661e66301aac36066912dac037827b4ae63a7b1165a5aa93ed4eb"
    client = make_client(tokens={"me": digest})
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/page/page.js"):
        assert client.get(path).status_code == 200, path
    for path in ("/v1/methods", "/metrics", "/v1/bundle", "/nowhere", "/v1/entities/1"):
        refused = client.get(path)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert refused.json()["error"]["code"] == "unauthorized"
        assert client.get(path, headers={"authorization": "Bearer guess"}).status_code == 401
    welcome = {"authorization": "Bearer open sesame"}
    assert client.get("/v1/methods", headers=welcome).status_code == 200
    assert client.get("/openapi.json").json()["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_queries_above_the_rate_get_429(make_service: MakeService) -> None:
    service = make_service(rate_per_minute=60, burst=3)
    client = TestClient(create_app(service, clock=lambda: 0.0))
    batch = {"queries": [{"positive": [1], "top_k": 1}] * 2}
    assert client.post("/v1/expand/batch", json=batch).status_code == 200
    assert client.post("/v1/expand", json={"positive": [1]}).status_code == 200
    for path in ("/v1/expand", "/v1/expand/stream"):
        refused = client.post(path, json={"positive": [1]})
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert refused.json()["error"]["code"] == "rate_limited"
    assert client.get("/v1/entities?prefix=e").status_code == 200, "only queries are counted"
    known, unknown = (client.get(f"/v1/entities/{name}?neighbours=0") for name in ("entity 1", "entty 1"))
    assert (known.status_code, unknown.status_code) == (200, 429), (
        "what is not known takes as long as a query"
    )
    assert 'seedset_shed_total{reason="rate_limited"} 3.0' in client.get("/metrics").text


def test_a_service_that_stops_answers_what_is_under_way_and_refuses_what_is_new(
    make_service: MakeService,
) -> None:
    service = make_service(delay=0.3)
    client = TestClient(create_app(service))
    assert service.under_way == 0
    with ThreadPoolExecutor() as threads:
        under_way = threads.submit(client.post, "/v1/expand", json={"positive": [1]})
        while not service.under_way:
            time.sleep(0.005)
        assert service.drain() == 1
        for refused in (
            client.post("/v1/expand", json={"positive": [1]}),
            client.get("/v1/entities/entity 1"),
        ):
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json()["error"]["code"] == "unavailable"
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["stages"]["ingress"]) == (503, "the service is stopping")
        assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200
        assert under_way.result().status_code == 200
    assert service.drain() == 0


def test_what_never_answers_json_is_not_said_to(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    others = (("expand/stream", "post", "text/event-stream"), ("images/{entity}/{n}", "get", "image/*"))
    for path, method, kind in others:
        assert list(paths[f"/v1/{path}"][method]["responses"]["200"]["content"]) == [kind]
    assert list(paths["/v1/expand"]["post"]["responses"]["200"]["content"]) == ["application/json"]
