"""A stand-in for an OpenAI-compatible endpoint: a real HTTP server on loopback, in a thread here."""

from __future__ import annotations

import io
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import pytest

from engine.chat.client import Clock

KEY = "sk-test-0123456789"
MODEL = "stand-in"
TRICKLE_S = 0.01
"""Pause after each byte of a response that trickles."""


@dataclass(frozen=True)
class Reply:
    """One response: a status, headers, a body; or a connection that is dropped.

    Args:
        announced: bytes that the head promises; default: those of the body.
        drop: end the connection without a response.
        hold: wait for this event before the body is sent.
        trickle: send every byte of the body, or of the headers too, after a pause.
    """

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    announced: int | None = None
    drop: bool = False
    hold: threading.Event | None = None
    trickle: Literal["", "body", "headers"] = ""


def completion(content: str | None, finish: str = "stop", usage: bool = True, **message: Any) -> Reply:
    """Return an answer as endpoints give it."""
    choice = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": content, **message},
    }
    counted = {"usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}} if usage else {}
    body = {"id": "x", "object": "chat.completion", "model": f"{MODEL}-1", "choices": [choice], **counted}
    return Reply(body=json.dumps(body).encode())


def listed(*names: str, **more: Any) -> Reply:
    """Return an answer that lists names as it was asked to."""
    return completion(json.dumps({"entities": list(names), **more}))


def problem(status: int, code: str = "", message: str = "no", **headers: str) -> Reply:
    """Return an error as endpoints give it; ``Retry-After`` is given as ``retry_after``."""
    body = json.dumps({"error": {"message": message, "type": "x", "code": code}}).encode()
    return Reply(status, body, {name.replace("_", "-"): value for name, value in headers.items()})


Answering = Callable[[dict[str, Any]], Reply]


class _Trickle(io.BytesIO):
    """A stream that passes on one byte at a time, until nobody listens."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self._stream = stream

    def write(self, content: Any) -> int:
        """Write a byte, wait, and so on."""
        with suppress(OSError):
            for byte in bytes(content):
                self._stream.write(bytes([byte]))
                time.sleep(TRICKLE_S)
        return len(content)


class ChatServer:
    """Gives the replies one after the other, the last one again and again; notes what it was asked."""

    def __init__(self, replies: Sequence[Reply] | Answering, path: str = "/v1/chat/completions") -> None:
        self._replies, self._path = replies, path
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                owner._answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def url(self) -> str:
        """The base address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(handler.rfile.read(int(handler.headers["content-length"])))
        with self._lock:
            place = len(self.requests)
            self.requests.append(asked)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
        assert handler.path == self._path
        replies = self._replies
        reply = replies(asked) if callable(replies) else replies[min(place, len(replies) - 1)]
        handler.close_connection = True
        if reply.drop:  # without a word: a reset
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        handler.send_response(reply.status)
        length = len(reply.body) if reply.announced is None else reply.announced
        for name, value in {"content-length": str(length), "connection": "close", **reply.headers}.items():
            handler.send_header(name, value)
        if reply.trickle == "headers":
            handler.wfile = _Trickle(handler.wfile)
        handler.end_headers()
        if reply.trickle == "body":
            handler.wfile = _Trickle(handler.wfile)
        if reply.hold is not None:
            handler.wfile.flush()
            reply.hold.wait(10)
        handler.wfile.write(reply.body)

    def __enter__(self) -> ChatServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def chat_server(
    monkeypatch: pytest.MonkeyPatch,
    replies: Sequence[Reply] | Answering,
    path: str = "/v1/chat/completions",
    /,
    **variables: object,
) -> Iterator[ChatServer]:
    """Run a stand-in, to which the environment points; ``variables`` are SEEDSET_CHAT_… without that."""
    with ChatServer(replies, path) as server:
        given = {"url": server.url, "model": MODEL, "key": KEY, **variables}
        for name, value in given.items():
            monkeypatch.setenv(f"SEEDSET_CHAT_{name.upper()}", str(value))
        yield server


class FakeClock:
    """Time that passes only when someone sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self.date = datetime(2026, 1, 1, tzinfo=UTC)

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    @property
    def clock(self) -> Clock:
        """The clock to hand over; its jitter is none."""
        today = self.date + timedelta(seconds=self.time)
        return Clock(lambda: self.time, self._sleep, lambda: today, lambda: 1.0)
