"""Install a header time-out, load shedding and resending in Serve's HTTP proxies.

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

from serve.proxy.load_shedding import LoadShedder
from serve.proxy.resend import Resender

VARIABLE = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK = "serve.proxy.install:install"

HEADER_TIMEOUT = "SEEDSET_HEAD_TIMEOUT_S"
"""Environment variable: seconds within which the head of a request must arrive."""

DEFAULT_S = 10.0


class HeaderTimeoutProtocol(HttpToolsProtocol):
    """A protocol that closes a connection on which the head of a request does not arrive whole in time.

    The time begins with the connection, and then with the first byte of each request; between requests
    uvicorn's own keep-alive time holds.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._start_timer()

    def on_message_begin(self) -> None:
        """Start the timer for the next head, unless it runs."""
        super().on_message_begin()
        self._start_timer()

    def on_headers_complete(self) -> None:
        """Stop the timer: the application limits the time of the body."""
        self._stop_timer()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._stop_timer()
        super().connection_lost(exc)

    def _start_timer(self) -> None:
        if self._timer is None:
            seconds = float(os.environ.get(HEADER_TIMEOUT, DEFAULT_S))
            self._timer = self.loop.call_later(seconds, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def install() -> list[Middleware]:
    """Install the header time-out, load shedding and resending in this process; Ray calls it in each proxy.

    Returns: the middleware that the proxy adds.
    """
    uvicorn.protocols.http.auto.AutoHTTPProtocol = HeaderTimeoutProtocol
    return [Middleware(LoadShedder), Middleware(Resender)]
