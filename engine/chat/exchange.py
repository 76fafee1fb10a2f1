"""Post to a chat model's endpoint and take in the whole response, all by one deadline.

The library's own time-outs are of one read each, so an endpoint that sends a byte now and then outlasts them,
in its headers as in its body. Here connecting, sending and every byte of the response count together: the
exchange is a task on an event loop, which ends the task when its time is over. The loop runs in a thread of
its own, one a process; callers are threads that wait.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from engine.chat.settings import ChatError, ChatSettings, is_loopback
from engine.external_errors import first_line

T = TypeVar("T")

SENDING, ANSWERING = "http11.send_request_headers.started", "http11.receive_response_headers.complete"
"""What the library tells of an exchange: its first byte is about to be sent; a response has begun."""


@dataclass(frozen=True)
class Response:
    """A response: its status, its headers, its body as it was sent."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class TooLargeError(Exception):
    """The body has more bytes than are read."""


class LateError(Exception):
    """The response was not there, or not whole, in time."""


class Connections:
    """The connections to one endpoint, shared by threads.

    Args:
        settings: of the endpoint.

    Raises:
        ChatError: the environment's proxy or certificates cannot be used.
    """

    def __init__(self, settings: ChatSettings) -> None:
        self._settings = settings
        self._http = _http_client(settings)

    def close(self) -> None:
        """Close the connections."""
        _on_loop(self._http.aclose())

    def begin(self, body: Mapping[str, Any]) -> Exchange:
        """Return an exchange that posts ``body`` as JSON; nothing is sent yet."""
        return Exchange(self._http, self._settings, body)


class Exchange:
    """One request and its response.

    Attributes:
        sent: whether a part of the request may have reached the endpoint.
        answered: whether a response has begun.
    """

    def __init__(self, http: httpx.AsyncClient, settings: ChatSettings, body: Mapping[str, Any]) -> None:
        self._http, self._settings, self._body = http, settings, body
        self.sent = self.answered = False

    def within(self, seconds: float) -> Response:
        """Send the request and return the whole response.

        Args:
            seconds: for all of it.

        Raises:
            LateError: the time is over.
            TooLargeError: the body has more than ``max_response_bytes``.
            httpx.HTTPError: the connection, or what comes over it, fails.
            httpx.InvalidURL, UnicodeError: the address cannot be one.
        """
        return _on_loop(self._run(seconds))

    async def _run(self, seconds: float) -> Response:
        try:
            async with asyncio.timeout(seconds):
                return await self._post()
        except TimeoutError:
            raise LateError from None

    async def _post(self) -> Response:
        posted = self._http.stream(
            "POST", self._settings.url, json=self._body, extensions={"trace": self._note}
        )
        content = bytearray()
        async with posted as response:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self._settings.max_response_bytes:
                    raise TooLargeError
        return Response(response.status_code, response.headers, bytes(content))

    async def _note(self, event: str, about: Mapping[str, Any]) -> None:
        # A proxy is first asked to connect; that is no part of the exchange.
        self.sent = self.sent or (event == SENDING and about["request"].method != b"CONNECT")
        self.answered = self.answered or (self.sent and event == ANSWERING)


def _on_loop(work: Coroutine[Any, Any, T]) -> T:
    """Return what a coroutine returns, run by the loop of this process; the calling thread waits."""
    running: Future[T] = asyncio.run_coroutine_threadsafe(work, _loop(os.getpid()))
    try:
        return running.result()
    finally:
        running.cancel()  # where the wait was interrupted; else it has ended


_starting = threading.Lock()


def _loop(process: int) -> asyncio.AbstractEventLoop:
    with _starting:
        return _started_loop(process)


@lru_cache(maxsize=1)
def _started_loop(process: int) -> asyncio.AbstractEventLoop:
    """Return a loop that runs in a thread; that of a parent process does not run in this one."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="chat-connections", daemon=True).start()
    return loop


def _http_client(settings: ChatSettings) -> httpx.AsyncClient:
    """Return a client that checks certificates and follows no redirect; this machine is asked without proxy.

    Raises:
        ChatError: the environment's proxy or certificates cannot be used.
    """
    key = settings.key.get_secret_value()
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    parts = urlsplit(settings.url)
    here = is_loopback(parts.hostname or "")
    try:
        direct = {f"{scheme}://": None for scheme in ("http", "https", "all")} if here else {}
        return httpx.AsyncClient(
            headers=headers | ({"authorization": f"Bearer {key}"} if key else {}),
            follow_redirects=False,
            mounts=direct,
            # The environment also names certificates, which https needs on this machine as well.
            trust_env=not here or parts.scheme == "https",
            timeout=None,  # an exchange has one deadline for all of it
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise ChatError(
            f"{settings.url}: no connection can be made ({first_line(error)}); check HTTP_PROXY and "
            "SSL_CERT_FILE"
        ) from None
