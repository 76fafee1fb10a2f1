"""Test how answers are represented: entity tags, HEAD, problem details, names for generated clients."""

from __future__ import annotations

import gzip
import json
import re

import pytest
from fastapi.testclient import TestClient

from serve.http.openapi import tag_of
from serve.http.representations import PROBLEM_JSON, details_of
from tests.support.services import MakeClient

TAGGED = [
    "/v1/entities?search=entity%207",
    "/v1/entities/entity%207?neighbours=0",
    "/v1/bundles/current/entities/7?neighbours=3",
    "/v1/attributes",
    "/v1/methods",
    "/v1/bundle",
    "/v1/reconcile",
    "/v1/reconcile/preview?id=entity%207",
]


@pytest.mark.parametrize("path", TAGGED)
def test_what_is_known_is_not_sent_again(client: TestClient, path: str) -> None:
    first = client.get(path)
    tag = first.headers["etag"]
    assert re.fullmatch(r'W/"[0-9a-f]{32}"', tag)
    assert first.headers["cache-control"] == "private, no-cache"
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        again = client.get(path, headers={"If-None-Match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert "content-type" not in again.headers
        assert again.headers["x-request-id"]
    other = client.get(path, headers={"If-None-Match": '"0"'})
    assert (other.status_code, other.content) == (200, first.content)


def test_a_tag_is_of_the_content(client: TestClient) -> None:
    one, other = (client.get(f"/v1/entities/entity {i}?neighbours=0").headers["etag"] for i in (7, 8))
    assert one != other
    tag = client.get("/v1/attributes").headers["etag"]
    plain = client.get("/v1/attributes", headers={"Accept-Encoding": "identity"})
    assert plain.headers["etag"] == tag


def test_head_says_what_get_would_without_it(client: TestClient) -> None:
    got, head = client.get("/v1/attributes"), client.head("/v1/attributes")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["etag"] == got.headers["etag"]
    assert client.head("/v1/attributes", headers={"If-None-Match": got.headers["etag"]}).status_code == 304


def test_a_large_answer_is_tagged_and_compressed(client: TestClient) -> None:
    with client.stream("GET", "/v1/entities?limit=500", headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["content-encoding"] == "gzip"
        assert answer.headers["etag"].startswith("W/")
        assert gzip.decompress(b"".join(answer.iter_raw()))


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/v1/entities/none"])
def test_what_is_of_the_moment_or_an_error_has_no_tag(client: TestClient, path: str) -> None:
    assert "etag" not in client.get(path).headers


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/expand", {"positive": ["entty 1"]}, 422),
        ("GET", "/v1/entities/entty 1", None, 404),
        ("GET", "/v1/nothing", None, 404),
        ("GET", "/v1/entities?prefx=a", None, 422),
        ("DELETE", "/v1/methods", None, 405),
        ("GET", "/v1/methods", None, 401),
    ],
)
def test_errors_are_problem_details_where_they_are_asked_for(
    client: TestClient, make_client: MakeClient, method: str, path: str, body: object, status: int
) -> None:
    asked = make_client(tokens={"a": "0" * 64}) if status == 401 else client
    plain = asked.request(method, path, json=body)
    assert (plain.status_code, plain.headers["content-type"]) == (status, "application/json")
    accept = {"Accept": f"application/json, {PROBLEM_JSON};q=0.9"}
    details = asked.request(method, path, json=body, headers=accept)
    assert (details.status_code, details.headers["content-type"]) == (status, PROBLEM_JSON)
    assert int(details.headers["content-length"]) == len(details.content)
    found, error = details.json(), plain.json()["error"]
    assert found["detail"] == error["message"]
    assert found["status"] == status
    assert {"type", "title", "status", "detail"} <= found.keys()
    assert {name: found[name] for name in error if name != "message"} == {
        name: value for name, value in error.items() if name != "message"
    }
    for name in ("www-authenticate", "allow"):
        assert details.headers.get(name) == plain.headers.get(name)


def test_what_is_no_error_stays_as_it_is(client: TestClient) -> None:
    accept = {"Accept": PROBLEM_JSON}
    assert client.get("/v1/methods", headers=accept).json() == client.get("/v1/methods").json()
    assert details_of({"ready": False}, 503) is None
    assert details_of([], 500) is None
    assert (details_of({"error": {"message": "m"}}, 499) or {})["title"] == "Error"


def test_operations_have_names_and_groups_for_generated_clients(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    operations = [(path, one) for path, methods in paths.items() for one in methods.values()]
    names = [one["operationId"] for _, one in operations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch("[a-z]+(_[a-z]+)*", name) for name in names)
    assert {"expand", "expand_batch", "entities", "lookup", "entity_by_id", "reconcile"} <= set(names)
    assert all(one["tags"] == [tag_of(path)] and one["description"] for path, one in operations)
    assert {tag for _, one in operations for tag in one["tags"]} >= {
        "expansion", "entities", "bundle", "typing", "reconciliation", "operation"
    }  # fmt: skip


def test_the_document_has_every_schema_that_it_refers_to(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    held = json.loads(text)["components"]["schemas"]
    assert {*re.findall(r'"#/components/schemas/([^"]+)"', text)} <= held.keys()
