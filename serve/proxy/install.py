"""Install limits of heads, a header time-out, load shedding and resending in Serve's HTTP proxies.

uvicorn, which the proxies run, waits for the head of a request for ever, and takes it however long; a client
that sends it a byte at a time holds a connection until none is left, one that never ends it all memory. Ray
calls :func:`install` in each proxy before it listens where ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` is
``serve.proxy.install:install``; ``serve.run`` sees to that on a cluster of its own, ``ray_cluster.yaml`` on
others.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import httptools
import uvicorn.protocols.http.auto
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.http.heads import MAX_HEAD_BYTES, TOO_LARGE, head_bytes
from serve.http.requests import encode
from serve.proxy.load_shedding import LoadShedder
from serve.proxy.request_ids import RequestIds
from serve.proxy.resend import Resender

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "serve.proxy.install:install"

HEADER_TIMEOUT = "SEEDSET_HEAD_TIMEOUT_S"
"""Environment variable: seconds within which the head of a request must arrive."""

DEFAULT_S = 10.0

LINGER_S = 1.0
"""Seconds in which what still comes is thrown away: a client that sends can then read why it is refused."""

UPGRADE = b"websocket"
"""The only protocol to change to."""


class StayingParser:
    """A parser of httptools that stays in HTTP/1.1 where another protocol than WebSocket is offered.

    An offer may be ignored (RFC 9110, section 7.8), and clients such as the JDK's offer HTTP/2 with their
    requests. httptools leaves HTTP where the head ends that makes one: the body would be lost, and what
    follows would be no request. So a head with an offer is parsed once more without it.
    """

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self._parser = httptools.HttpRequestParser(protocol)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def has_offer(self) -> bool:
        """Return whether the head holds an offer to be ignored, so that it will come once more."""
        offers = [value.strip().lower() for name, value in self._protocol.headers if name == b"upgrade"]
        return bool(offers) and offers != [UPGRADE] and self._parser.should_upgrade()

    def feed_data(self, data: bytes) -> None:
        """Parse the next bytes of a connection."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as offered:
            if not self.has_offer():
                raise
            rest = data[offered.args[0] :]
            head = self._head_without_offer()
            self._parser = httptools.HttpRequestParser(self._protocol)
            self.feed_data(head + rest)

    def _head_without_offer(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [self._parser.get_method() + b" " + self._protocol.url + b" HTTP/" + version]
        for name, value in self._protocol.headers:
            if name == b"connection":
                options = (one.strip() for one in value.split(b","))
                value = b", ".join(one for one in options if one.lower() != b"upgrade")
            if name != b"upgrade":
                lines.append(name + b": " + value)
        return b"\r\n".join([*lines, b"", b""])


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """A protocol that closes a connection on which the head of a request does not arrive whole in time.

    The time begins with the connection, and then with the first byte of each request; between requests
    uvicorn's own keep-alive time holds. A head above its size is answered with 431.
    """

    _timer: asyncio.TimerHandle | None = None
    _refused = False
    _began = False
    _waiting = 0
    """Bytes of a head that is not whole, without those that came with its beginning."""

    parser: StayingParser  # type: ignore[assignment]
    url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self.parser = StayingParser(self)
        self.headers = []
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Take the next bytes, of a head no more than its limit."""
        if self._refused:
            return
        self._began = False
        super().data_received(data)
        if self._timer is None:  # no head is under way
            self._waiting = 0
            return
        self._waiting += 0 if self._began else len(data)
        if max(self._waiting, head_bytes(self.url, self.headers)) > MAX_HEAD_BYTES:
            self._refuse()

    def on_message_begin(self) -> None:
        """Start the timer for the next head, unless it runs."""
        super().on_message_begin()
        self._began = True
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop the timer: the application limits the time of the body."""
        if self.parser.has_offer():
            return
        self._stop_timer()
        if head_bytes(self.url, self.headers) > MAX_HEAD_BYTES:
            self._refuse()
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        if not self._refused and not self.parser.has_offer():
            super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _refuse(self) -> None:
        """Answer 431 and end the connection; what still comes is not kept."""
        self._refused = True
        self._stop_timer()
        if self.cycle is None or self.cycle.response_complete:
            body = encode(TOO_LARGE.body)
            head = f"HTTP/1.1 {TOO_LARGE.status} Request Header Fields Too Large\r\n" + (
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)

    def _start_timer(self) -> None:
        if self._timer is None and not self._refused:
            seconds = float(os.environ.get(HEADER_TIMEOUT, DEFAULT_S))
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def install() -> list[Middleware]:
    """Install the limits of heads, load shedding and resending in this process; Ray calls it in each proxy.

    Returns: the middlewares that the proxy adds, the outermost last.
    """
    uvicorn.protocols.http.auto.AutoHTTPProtocol = HeaderTimeoutProtocol
    return [Middleware(LoadShedder), Middleware(Resender), Middleware(RequestIds)]
