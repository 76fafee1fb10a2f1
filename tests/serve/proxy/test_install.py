"""Connections on which nothing is said."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from serve.proxy import install as proxy
from serve.proxy.load_shedding import LoadShedder
from serve.proxy.resend import Resender

LIMIT_S = 0.3


async def hello(scope: dict[str, object], receive: object, send: object) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"ok"})  # type: ignore[operator]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv(proxy.HEADER_TIMEOUT, f"{LIMIT_S}")
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", None)
    assert [one.cls for one in proxy.install()] == [LoadShedder, Resender]
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(hello, lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    server.should_exit = True
    thread.join(5)


@pytest.mark.parametrize("said", [b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: 1"])
def test_who_does_not_finish_a_head_is_hung_up_on(port: int, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        started = time.monotonic()
        client.sendall(said)
        assert client.recv(10) == b""
        assert time.monotonic() - started > LIMIT_S / 2


def test_a_byte_now_and_then_does_not_help(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
        started = time.monotonic()

        def drip() -> None:
            while time.monotonic() - started < 5:
                client.sendall(b"X-Slow: 1\r\n")
                time.sleep(0.05)

        with pytest.raises(ConnectionError):
            drip()
        assert time.monotonic() - started < 2


def test_the_second_request_of_a_connection_has_as_long_and_a_pause_between_is_allowed(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            # The head and the body may come in two pieces.
            with client.makefile("rb") as answer:
                assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
                while answer.readline() != b"\r\n":
                    pass
                assert answer.read(2) == b"ok"
            time.sleep(2 * LIMIT_S)
        client.sendall(b"GET /")
        assert client.recv(10) == b""
