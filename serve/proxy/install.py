"""What Serve's HTTP proxies do besides: hang up on who does not say what he wants, and throttle.

uvicorn, which the proxies run, waits for the head of a request for ever; a client that sends it a byte at a
time holds a connection until none is left. Ray calls :func:`install` in each proxy before it listens where
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`` is ``serve.proxy.install:install``; ``serve.run`` sees to that
on a cluster of its own, ``ray_cluster.yaml`` on others.
"""

from __future__ import annotations

import asyncio
import os

import uvicorn.protocols.http.auto
from starlette.middleware import Middleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serve.proxy.load_shedding import Throttle

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "serve.proxy.install:install"

HEAD_TIMEOUT = "SEEDSET_HEAD_TIMEOUT_S"
"""Variable with the seconds that the head of a request may take to arrive."""

DEFAULT_S = 10.0


class ImpatientProtocol(HttpToolsProtocol):
    """Closes a connection on which the head of a request does not arrive whole in time.

    The time begins with the connection, and then with the first byte of each request; between requests
    uvicorn's own keep-alive time holds.
    """

    _hang_up: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def on_message_begin(self) -> None:
        """Go on waiting, or begin again."""
        super().on_message_begin()
        self._wait()

    def on_headers_complete(self) -> None:
        """Wait no more: the body's time is the application's to watch."""
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._end()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._hang_up is None:
            seconds = float(os.environ.get(HEAD_TIMEOUT, DEFAULT_S))
            self._hang_up = self.loop.call_later(seconds, self.transport.close)

    def _end(self) -> None:
        if self._hang_up is not None:
            self._hang_up.cancel()
            self._hang_up = None


def install() -> list[Middleware]:
    """Make uvicorn use :class:`ImpatientProtocol` in this process, and refuse at the door under overload."""
    uvicorn.protocols.http.auto.AutoHTTPProtocol = ImpatientProtocol
    return [Middleware(Throttle)]
