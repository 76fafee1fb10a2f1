"""Post to a chat model's endpoint by the ``openai`` library, and take in the whole response by one deadline.

The library knows the API: where a request is posted below the base address, in what form, with what header
of the key, and which responses are errors. What this module adds, as the library does not have it:

- One deadline. The library's time-outs are of one read each, so an endpoint that sends a byte now and then
  outlasts them, in its headers as in its body. Here connecting, sending and every byte of the response count
  together: the exchange is a task on an event loop, which ends the task when its time is over. The loop runs
  in a thread of its own, one a process; callers are threads that wait.
- A limit on the size of a response, of errors as of answers, which the library reads to their end.
- No surprise from the environment. The library reads variables of its own, ``OPENAI_…``. Those of a key and
  an address it does not read where both are given, as here; what the others would add to a request is not
  sent: of its headers, only those in :data:`HEADERS` are.

The library's own retries are off; :mod:`engine.chat.client` says why. This module is imported where a prompt
may be sent, and nowhere else: importing the library takes 0.7 s of a core.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx2
import openai

from engine.chat.exchange import (
    BrokenError,
    ExchangeError,
    LateError,
    Response,
    TooLargeError,
    UndecodableError,
)
from engine.chat.settings import COMPLETIONS, SCORES, ChatError, ChatSettings, is_loopback, variable
from engine.external_errors import first_line

T = TypeVar("T")

SENDING, ANSWERING = "http11.send_request_headers.started", "http11.receive_response_headers.complete"
"""What the transport tells of an exchange: its first byte is about to be sent; a response has begun."""

HEADERS = frozenset(
    ("host", "accept", "accept-encoding", "authorization", "connection", "content-length", "content-type")
) | {"user-agent"}
"""Headers that are sent. The library has others: about this machine, and what the environment names."""


class Endpoint:
    """The connections to one endpoint, shared by threads.

    Args:
        settings: of the endpoint.

    Raises:
        ChatError: the address, or the environment's proxy or certificates, cannot be used.
    """

    def __init__(self, settings: ChatSettings) -> None:
        key = settings.key.get_secret_value()
        self._headers = {"Authorization": f"Bearer {key}" if key else openai.omit}
        try:
            url = httpx2.URL(settings.address(""))
        except httpx2.InvalidURL as error:
            raise ChatError(
                f"{settings.url}: no address ({first_line(error)}); check {variable('url')}"
            ) from None
        try:
            self._client = openai.AsyncOpenAI(
                api_key=key or "none",  # it wants one; where there is none, its header is left out
                base_url=url,
                max_retries=0,
                timeout=None,  # an exchange has one deadline for all of it
                http_client=_http_client(settings),
            )
        except (ValueError, ImportError, OSError, httpx2.InvalidURL) as error:
            raise ChatError(
                f"{settings.url}: no connection can be made ({first_line(error)}); check HTTP_PROXY and "
                "SSL_CERT_FILE"
            ) from None
        # What is asked is a dictionary by now, which the overloads for literals cannot be matched with.
        self._create: dict[str, Callable[..., Any]] = {
            COMPLETIONS: self._client.chat.completions.with_raw_response.create,
            SCORES: self._client.completions.with_raw_response.create,
        }

    def close(self) -> None:
        """Close the connections."""
        _on_loop(self._client.close())

    def post(self, path: str, body: Mapping[str, Any], seconds: float) -> Response:
        """Send a request and return the whole response, of whatever status.

        Args:
            path: the kind of request, below the base address.
            body: its parameters.
            seconds: for all of it.

        Raises:
            ExchangeError: there is no whole response; the subclass says why.
        """
        return _on_loop(self._post(path, body, seconds))

    async def _post(self, path: str, body: Mapping[str, Any], seconds: float) -> Response:
        progress = _Progress()
        _progress.set(progress)
        try:
            async with asyncio.timeout(seconds):
                answer = await self._create[path](**body, extra_headers=self._headers)
            return Response(answer.status_code, answer.headers, answer.content)
        except openai.APIStatusError as error:
            return Response(error.status_code, error.response.headers, error.response.content)
        except TimeoutError:
            failed: type[ExchangeError] = LateError
            detail = ""
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            failed = UndecodableError if isinstance(cause, httpx2.DecodingError) else BrokenError
            detail = first_line(cause)
        raise failed(detail, sent=progress.sent, answered=progress.answered)


class _Progress:
    """How far an exchange has come.

    Attributes:
        sent: whether a part of the request may have reached the endpoint.
        answered: whether a response has begun.
    """

    def __init__(self) -> None:
        self.sent = self.answered = False

    async def note(self, event: str, about: Mapping[str, Any]) -> None:
        """Take in an event of the transport."""
        # A proxy is first asked to connect; that is no part of the exchange.
        self.sent = self.sent or (event == SENDING and about["request"].method != b"CONNECT")
        self.answered = self.answered or (self.sent and event == ANSWERING)


_progress: ContextVar[_Progress] = ContextVar("progress")
"""Of the exchange that the running task is: the library has no parameter that would carry it."""


class _LimitedClient(httpx2.AsyncClient):
    """Sends the library's requests with :data:`HEADERS` alone, and reads responses up to a limit.

    Args:
        max_bytes: of a response's body.
        options: of the transport's client.
    """

    def __init__(self, max_bytes: int, **options: Any) -> None:
        super().__init__(**options)
        self._max_bytes = max_bytes

    async def send(self, request: httpx2.Request, *, stream: bool = False, **options: Any) -> httpx2.Response:
        """Send a request and return its whole response; ``stream`` is never asked for.

        Raises:
            TooLargeError: the body has more bytes than the limit.
            httpx2.HTTPError: the connection, or what comes over it, fails.
        """
        sent = httpx2.Request(
            request.method,
            request.url,
            headers={name: value for name, value in request.headers.items() if name in HEADERS},
            content=request.content,
            extensions={**request.extensions, "trace": _progress.get().note},
        )
        response = await super().send(sent, stream=True, **options)
        content = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > self._max_bytes:
                    raise TooLargeError(sent=True, answered=True)
        finally:
            await response.aclose()
        # The body is decompressed, and no longer what its header says.
        headers = {name: value for name, value in response.headers.items() if name != "content-encoding"}
        return httpx2.Response(response.status_code, headers=headers, content=bytes(content), request=request)


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


def _http_client(settings: ChatSettings) -> httpx2.AsyncClient:
    """Return a client that checks certificates and follows no redirect; this machine is asked without proxy.

    Raises:
        ValueError, ImportError, OSError, httpx2.InvalidURL: the environment's proxy or certificates cannot be
            used.
    """
    parts = urlsplit(settings.url)
    here = is_loopback(parts.hostname or "")
    direct = {f"{scheme}://": None for scheme in ("http", "https", "all")} if here else {}
    return _LimitedClient(
        settings.max_response_bytes,
        headers={"accept-encoding": "identity"},
        follow_redirects=False,
        mounts=direct,
        # The environment also names certificates, which https needs on this machine as well.
        trust_env=not here or parts.scheme == "https",
        timeout=None,
        limits=httpx2.Limits(max_connections=settings.concurrency),
    )
