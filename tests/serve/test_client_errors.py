"""Test what the client says where no answer of the service comes, and which way its requests take."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from serve.client import Client, ServiceError


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> Client:
    return Client("http://service.test", attempts=1, transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>a login page</html>"),
        httpx.Response(200, json=["no", "object"]),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, text="[" * 100_000),
    ],
)
@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.expand(["a"]),
        lambda c: c.expand_batch([]),
        lambda c: c.entities("a"),
        lambda c: c.attributes(),
        lambda c: c.methods(),
    ],
)
def test_an_answer_of_something_else_says_to_check_the_address(
    answer: httpx.Response, call: Callable[[Client], Any]
) -> None:
    with (
        client_of(lambda _: answer) as client,
        pytest.raises(ServiceError, match="check the address") as caught,
    ):
        call(client)
    assert (caught.value.status, caught.value.code) == (200, "http")


@pytest.mark.parametrize("text", ["data: {\n\n", "event: error\ndata: {}\n\n", "data: [" + "[" * 5 + "\n\n"])
def test_a_stream_of_something_else_says_to_check_the_address(text: str) -> None:
    answer = httpx.Response(200, text=text)
    with client_of(lambda _: answer) as client, pytest.raises(ServiceError, match="check the address"):
        list(client.stream(["a"]))


@pytest.mark.parametrize("text", ["", "<html></html>", 'event: stage\ndata: {"stage": "A"}\n\n'])
def test_a_stream_that_ends_early_is_an_error(text: str) -> None:
    answer = httpx.Response(200, text=text)
    with client_of(lambda _: answer) as client, pytest.raises(ServiceError, match="ended before the answer"):
        list(client.stream(["a"]))


@pytest.mark.parametrize("option", [float("nan"), {1, 2}, "\ud800", object()])
def test_what_cannot_be_written_is_refused_before_it_is_sent(option: object) -> None:
    with client_of(lambda _: httpx.Response(500)) as client:
        for call in (client.expand, lambda *a, **k: list(client.stream(*a, **k))):
            with pytest.raises(ServiceError, match="the request cannot be written") as caught:
                call(["a"], filter={"x": option})
            assert caught.value.code == "invalid_request"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://a", "http://", "", "http://a:port", "http://[::1"])
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="write http://host:port"):
        Client(url)


def test_a_proxy_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "gopher://proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(ValueError, match=r"service\.test: no connection can be made .* check HTTP_PROXY"):
        Client("http://service.test")


@pytest.fixture
def served() -> Iterator[HTTPServer]:
    """A server on loopback that answers every GET with the methods."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"default": "a"}')

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_is_never_asked_through_a_proxy(
    served: HTTPServer, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Client(f"http://{host}:{served.server_port}", token="t", attempts=1) as client:
        assert client.methods() == {"default": "a"}
    with (
        Client("http://service.test", attempts=1) as client,
        pytest.raises(ServiceError, match="unreachable"),
    ):
        client.methods()
