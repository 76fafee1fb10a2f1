"""What a request says before its body: where it goes, which host it names, how long it is."""

from __future__ import annotations

import hashlib
import socket

import pytest
from fastapi.testclient import TestClient
from pydantic import ValidationError

from serve.http.heads import MAX_HEAD_BYTES, HostCheck
from serve.http.routes import create_app
from serve.settings import ServeSettings
from tests.support.services import MakeClient, MakeService

TOKENS = {"me": hashlib.sha256(b"secret").hexdigest()}
GIVEN = {"authorization": "Bearer secret"}

PREFIXES = ["", "/page", "/healthz", "/a/b", "/v1", "/page/page"]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_is_open_goes_by_the_route_and_not_by_the_path(make_service: MakeService, prefix: str) -> None:
    app = create_app(make_service(tokens=TOKENS))
    client = TestClient(app, raise_server_exceptions=False, root_path=prefix)
    for path in ("/", "/page/page.js", "/healthz", "/readyz", "/openapi.json"):
        assert client.get(prefix + path).status_code == 200, path
    closed = [
        "/v1/methods",
        "/v1/entities?prefix=a",
        "/metrics",
        "/v1/images/1/0",
        "/none",
        "/page/a/b",
        "/docs",
    ]
    for path in closed:
        assert client.get(prefix + path).status_code == 401, path
        assert client.get(prefix + path, headers=GIVEN).status_code in (200, 404), path
    body = {"positive": [1], "top_k": 2}
    for path in ("/v1/expand", "/v1/expand/stream"):
        assert client.post(prefix + path, json=body).status_code == 401
        assert client.post(prefix + path, json=body, headers=GIVEN).status_code == 200


def test_the_bare_prefix_leads_to_the_page(make_service: MakeService) -> None:
    client = TestClient(create_app(make_service(tokens=TOKENS)), root_path="/a/b", follow_redirects=False)
    answer = client.get("/a/b")
    assert (answer.status_code, answer.headers["location"]) == (307, "b/")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/page/page.css",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/v1/methods",
        "/v1/entities/entity%201",
    ],
)
def test_head_answers_as_get_without_a_body(client: TestClient, path: str) -> None:
    head, full = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    if path != "/metrics":
        assert head.headers["content-length"] == full.headers["content-length"]


def test_head_of_what_is_not_there_and_of_a_query(client: TestClient) -> None:
    missing = client.head("/v1/entities/nobody")
    assert (missing.status_code, missing.content) == (404, b"")
    assert client.head("/v1/expand").status_code == 405
    assert client.post("/healthz", json={}).headers["allow"] == "GET, HEAD"


def test_a_head_above_its_size_is_refused_by_the_application_too(client: TestClient) -> None:
    for answer in (
        client.get("/healthz", headers={"x-long": "x" * MAX_HEAD_BYTES}),
        client.get("/v1/entities?prefix=" + "x" * 60_000, headers={"x-long": "x" * 6000}),
    ):
        assert (answer.status_code, answer.json()["error"]["code"]) == (431, "head_too_large")


@pytest.mark.parametrize("given", [["a b"], ["x" * 65], ["one", "two"]])
def test_an_id_that_is_none_is_not_repeated(client: TestClient, given: list[str]) -> None:
    answer = client.get("/healthz", headers=[("x-request-id", one) for one in given])
    (only,) = answer.headers.get_list("x-request-id")
    assert len(only) == 32
    answer = client.get("/healthz", headers={"X-Request-ID": "mine"})
    assert answer.headers.get_list("x-request-id") == ["mine"]


def refused(host: bytes, server: str | None, allowed: tuple[str, ...] = (), tokens: bool = False) -> bool:
    scope = {"type": "http", "headers": [(b"host", host)], "server": server and (server, 8000)}
    return HostCheck(allowed, tokens).problem(scope) is not None


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil", "a, b"]
)
def test_over_loopback_without_tokens_another_sites_name_is_refused(host: str) -> None:
    for server in ("127.0.0.1", "127.0.1.1", "::1", "::ffff:127.0.0.1"):
        assert refused(host.encode(), server)
        assert not refused(host.encode(), server, tokens=True)
        assert not refused(host.encode(), server, ("*",))
    assert not refused(host.encode(), "192.0.2.7")
    assert not refused(host.encode(), None)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8000",
        "localhost.",
        "a.localhost:1",
        "127.0.0.1:8000",
        "[::1]:8000",
        "[::1]",
        "0.0.0.0:8000",
    ],
)
def test_this_machine_by_its_own_names_is_not(host: str) -> None:
    assert not refused(host.encode(), "127.0.0.1")
    assert not refused(socket.gethostname().encode(), "127.0.0.1")


def test_allowed_hosts_are_all_that_are_answered_besides() -> None:
    allowed = ("Ours.example.org", "*.below.example", "192.0.2.7", "[2001:db8::1]")
    for host in (
        b"ours.example.org:80",
        b"a.below.example",
        b"a.b.below.example",
        b"192.0.2.7:8",
        b"[2001:db8::1]:8",
    ):
        assert not refused(host, "192.0.2.7", allowed, tokens=True), host
    for host in (b"example.org", b"below.example", b"xbelow.example", b"192.0.2.8", b"notours.example.org"):
        assert refused(host, "192.0.2.7", allowed, tokens=True), host
    assert not refused(b"127.0.0.1:8000", "127.0.0.1", allowed)


def test_one_of_two_hosts_that_is_another_sites_is_enough() -> None:
    headers = [(b"host", b"localhost"), (b"host", b"evil.example")]
    scope = {"type": "http", "headers": headers, "server": ("127.0.0.1", 1)}
    assert HostCheck((), tokens=False).problem(scope)


def test_a_refusal_names_the_way_out(make_client: MakeClient) -> None:
    client = make_client(allowed_hosts="ours.example,*.more.example")
    answer = client.get("/healthz", headers={"host": "evil.example"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (403, "host_not_allowed")
    assert "allowed_hosts" in error["message"]
    assert client.get("/healthz", headers={"host": "a.more.example"}).status_code == 200


@pytest.mark.parametrize("host", ["http://a.example", "a.example:80", "a.*.example", "*a.example", "a b", ""])
def test_a_setting_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="is no host"):
        ServeSettings.model_validate({"workspace": "w", "allowed_hosts": [host]})


ORIGIN = "https://app.example.org"


def test_pages_of_allowed_origins_alone_may_ask(make_client: MakeClient) -> None:
    asked = {"origin": ORIGIN, "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    assert "access-control-allow-origin" not in make_client().get("/v1/bundle", headers=asked).headers
    tokens = {"page": hashlib.sha256(b"t" * 40).hexdigest()}
    client = make_client(allowed_origins=f"{ORIGIN}, http://localhost:3000", tokens=tokens)
    first = client.options("/v1/expand", headers=asked)
    assert (first.status_code, first.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "authorization" in first.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in first.headers
    refused = client.get("/v1/bundle", headers={"origin": ORIGIN})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, ORIGIN)
    assert "x-request-id" in refused.headers["access-control-expose-headers"].lower()
    other = client.options("/v1/expand", headers=asked | {"origin": "https://evil.example"})
    assert other.status_code == 400
    assert "access-control-allow-origin" not in other.headers


@pytest.mark.parametrize(
    "origin", ["app.example.org", "https://a.example/", "https://a.example/x", "ftp://a", ""]
)
def test_a_setting_that_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(ValidationError, match="is no origin"):
        ServeSettings.model_validate({"workspace": "w", "allowed_origins": [origin]})
