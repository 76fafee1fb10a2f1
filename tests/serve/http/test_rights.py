"""Rights of tokens: each route declares one, and no token passes that lacks it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.routing import Route

from serve.http.rights import OPEN, check_declared, needs, right_of
from serve.http.routes import create_app
from serve.sets.access import LocalSets
from serve.settings import RIGHTS
from tests.support.services import MakeClient, MakeService

TOKENS = {right: {"rights": right, "sha256": hashlib.sha256(right.encode()).hexdigest()} for right in RIGHTS}

WRITES = {("POST", "/v1/sets"), ("POST", "/v1/sets/import"), ("POST", "/v1/sets/{set_id}/events")}
WRITES |= {("DELETE", "/v1/sets/{set_id}"), ("DELETE", "/v1/sets/{set_id}/reviews")}
WRITES |= {("POST", "/v1/sets/{set_id}/reviews"), ("POST", "/v1/sets/{set_id}/reviews/marks")}
WITHOUT_TOKEN = {"/", "/page/{name}", "/healthz", "/readyz", "/openapi.json"}


@pytest.fixture(scope="module")
def app(make_service: MakeService, tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    sets = LocalSets(tmp_path_factory.mktemp("sets") / "sets.sqlite")
    return create_app(make_service(tokens=TOKENS), sets=sets)


def operations(app: FastAPI) -> Iterator[tuple[str, APIRoute]]:
    for route in app.routes:
        assert isinstance(route, APIRoute), f"{route}: a kind of route of which this test knows no right"
        for method in route.methods or ():
            yield method, route


def test_every_route_declares_its_right(app: FastAPI) -> None:
    found = {(method, route.path): right_of(route) for method, route in operations(app)}
    assert {path for (_, path), right in found.items() if right == OPEN} == WITHOUT_TOKEN
    curated = {operation for operation, right in found.items() if right == "curate"}
    assert curated == WRITES
    # What changes something is no GET, and what is no GET and needs to read alone only asks.
    assert all(
        method == "POST" for (method, _), right in found.items() if right == "read" and method != "GET"
    )
    assert len(found) > 30


def test_a_route_without_a_right_does_not_start() -> None:
    async def forgotten() -> None: ...

    with pytest.raises(TypeError, match="/v1/forgotten: declare the right"):
        check_declared([Route("/v1/forgotten", forgotten)])
    with pytest.raises(ValueError, match="no right is called 'write'"):
        needs("write")  # type: ignore[arg-type]


def test_a_token_passes_where_its_right_is_enough_and_nowhere_else(app: FastAPI) -> None:
    client = TestClient(app, raise_server_exceptions=False)
    for (method, route), held in product(operations(app), RIGHTS):
        needed = right_of(route)
        path = str(route.url_path_for(route.name, **dict.fromkeys(route.param_convertors, "0" * 32)))
        answer = client.request(method, path, headers={"authorization": f"Bearer {held}"})
        allowed = needed == OPEN or RIGHTS.index(held) >= RIGHTS.index(needed)
        told = (method, path, held, answer.status_code)
        assert (answer.status_code != 403) == allowed, told
        if not allowed:
            error = answer.json()["error"]
            assert error["code"] == "forbidden", told
            assert repr(needed) in error["message"], told
            assert repr(held) in error["message"], told
        assert client.request(method, path).status_code != 200 or needed == OPEN


def test_two_methods_of_one_path_need_each_its_own_right(app: FastAPI) -> None:
    client = TestClient(app, headers={"authorization": "Bearer read"})
    assert client.get("/v1/sets").status_code == 200
    assert client.head("/v1/sets").status_code == 200
    assert client.post("/v1/sets", json={"name": "one"}).status_code == 403
    assert client.put("/v1/sets").status_code == 405
    made = client.post("/v1/sets", json={"name": "one"}, headers={"authorization": "Bearer curate"}).json()
    assert made["created_by"] == "curate"
    assert client.delete(f"/v1/sets/{made['id']}?version=1").status_code == 403
    assert client.get(f"/v1/sets/{made['id']}").status_code == 200


def test_the_document_says_of_each_operation_which_right_it_needs(app: FastAPI) -> None:
    document: dict[str, Any] = TestClient(app).get("/openapi.json").json()
    assert "security" not in document
    for method, route in operations(app):
        if route.include_in_schema:
            right = right_of(route)
            told = document["paths"][route.path_format][method.lower()]["security"]
            assert told == ([] if right == OPEN else [{"token": [right]}]), route.path


def test_a_digest_alone_may_do_all_as_it_could_before_there_were_rights(
    make_service: MakeService, tmp_path: Path
) -> None:
    app = create_app(
        make_service(tokens={"old": hashlib.sha256(b"secret").hexdigest()}), sets=LocalSets(tmp_path / "s")
    )
    client = TestClient(app, headers={"authorization": "Bearer secret"})
    assert client.post("/v1/sets", json={"name": "one"}).status_code == 200


def test_a_token_is_told_what_it_may_do(app: FastAPI, make_client: MakeClient) -> None:
    client = TestClient(app)
    for right in RIGHTS:
        told = client.get("/v1/caller", headers={"authorization": f"Bearer {right}"})
        assert told.json() == {"name": right, "rights": right}
    assert client.get("/v1/caller").status_code == 401
    assert make_client().get("/v1/caller").json() == {"name": "", "rights": "publish"}, (
        "no tokens: all may do all"
    )
