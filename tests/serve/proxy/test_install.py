"""Connections on which nothing is said, or too much, or another protocol is offered."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest
import uvicorn

from serve.http.heads import MAX_HEAD_BYTES
from serve.proxy import install as proxy
from serve.proxy.load_shedding import LoadShedder
from serve.proxy.request_ids import RequestIds
from serve.proxy.resend import Resender

LIMIT_S = 0.3


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer 200 to whoever sends as long a body as he says."""
    assert scope["type"] == "http"
    headers = dict(scope["headers"])
    received = await receive()
    while received.get("more_body"):
        more = await receive()
        received = {"body": received["body"] + more["body"], "more_body": more.get("more_body")}
    assert len(received["body"]) == int(headers.get(b"content-length", 0))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setenv(proxy.HEADER_TIMEOUT, f"{LIMIT_S}")
    monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", None)
    assert [one.cls for one in proxy.install()] == [LoadShedder, Resender, RequestIds]
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


def status_of(answer: BinaryIO) -> int:
    """Read one answer to its end; return its status."""
    status = int(answer.readline().split()[1])
    length = 0
    while (line := answer.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    answer.read(length)
    return status


OFFERS = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n",
    "another": b"Connection: upgrade\r\nUpgrade: TLS/1.0, irc/6.9\r\n",
}


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize("body", [b"", b'{"a": 1}'])
def test_an_offer_of_another_protocol_is_ignored(port: int, offer: str, body: bytes) -> None:
    head = b"POST / HTTP/1.1\r\nHost: x\r\n" + OFFERS[offer] + b"Content-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rb") as answer:
        for pieces in ([head + body], [head, body], [head + body + head + body]):
            for piece in pieces:
                client.sendall(piece)
                time.sleep(0.01)
            for _ in range(b"".join(pieces).count(b"POST")):
                assert status_of(answer) == 200


@pytest.mark.parametrize(
    "pieces",
    [
        [b"X-Long: " + b"x" * MAX_HEAD_BYTES + b"\r\n\r\n"],
        [b"X-Long: ", *[b"x" * 100_000] * 20],
        [b"X-%d: 1\r\n" % number * 4000 for number in range(4)],
    ],
)
def test_a_head_above_its_size_is_answered_with_431(port: int, pieces: list[bytes]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rb") as answer:
        try:
            for piece in [b"GET / HTTP/1.1\r\nHost: x\r\n", *pieces]:
                client.sendall(piece)
        except ConnectionError:
            pytest.fail("the connection was closed before the answer could be read")
        assert status_of(answer) == 431
        assert answer.read() == b"", "the connection is closed"


def test_a_long_body_and_a_head_within_its_size_pass(port: int) -> None:
    body = b"x" * (4 * MAX_HEAD_BYTES)
    head = b"POST / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (MAX_HEAD_BYTES - 500)
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client, client.makefile("rb") as answer:
        for _ in range(2):
            client.sendall(head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert status_of(answer) == 200


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([], None),
        ([b"mine-1"], b"mine-1"),
        ([b"a b"], None),
        ([b"x" * 65], None),
        ([b"caf\xe9"], None),
        ([b"one", b"two"], None),
    ],
)
def test_an_answer_has_one_checked_id(given: list[bytes], kept: bytes | None) -> None:
    """Serve's own layer inside adds what it was given, beside what the application adds."""
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        (inner,) = [value for name, value in scope["headers"] if name == b"x-request-id"]
        headers = [(b"x-request-id", inner), (b"X-Request-ID", given[0] if given else inner)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(b"host", b"x"), *((b"x-request-id", one) for one in given)]}
    asyncio.run(RequestIds(application)(scope, None, send))  # type: ignore[arg-type]
    (only,) = [value for name, value in sent[0]["headers"] if name.lower() == b"x-request-id"]
    assert only == kept if kept else len(only) == 32
