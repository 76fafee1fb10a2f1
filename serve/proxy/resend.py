"""Send a request again whose ingress replica died before it answered. An ASGI middleware of Serve's proxies.

Serve's proxy ends such a request without any answer, which the client sees as a bare 500. A query changes
nothing, so it may run twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.errors import Problem
from serve.http.requests import encode
from serve.proxy.load_shedding import EXPANSION

ATTEMPTS = 4
FIRST_PAUSE_S = 0.1

WITHIN_S = 30.0
"""Seconds since its beginning in which a request is sent again."""

KEPT_BYTES = 1 << 20
"""Size of a body up to which it is kept to be sent again: as much as the service takes by default."""

PROBLEM = Problem("unavailable", "the replica that answered was lost; try again in 1 s", 503, retry_after_s=1)


class Resender:
    """A middleware that sends again what was lost: GET and HEAD of any application, and queries of ours.

    Args:
        app: the application.
        clock: monotonic, in seconds.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on until there is an answer."""
        query = scope["type"] == "http" and EXPANSION.search(scope["path"]) is not None
        if scope["type"] != "http" or not (query or scope["method"] in ("GET", "HEAD")):
            await self._app(scope, receive, send)
            return
        request = _Request(receive, send)
        end, pause = self._clock() + WITHIN_S, FIRST_PAUSE_S
        for attempt in range(ATTEMPTS):
            # The application may write into the scope.
            await self._app({**scope, "headers": list(scope["headers"])}, request.receiver(), request.send)
            if request.answered or not request.repeatable or attempt == ATTEMPTS - 1:
                break
            if self._clock() + pause > end:
                break
            await asyncio.sleep(pause)
            pause *= 2
        if query and not request.answered and not request.left:
            await _send_problem(send)


class _Request:
    """One request: what was received of it, and whether an answer has begun."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._kept: list[Message] = []
        self._size = 0
        self.answered = self.left = False

    @property
    def repeatable(self) -> bool:
        """Whether all of it that was received can be sent again, and somebody waits."""
        return not self.left and self._size <= KEPT_BYTES

    async def send(self, message: Message) -> None:
        self.answered = True
        await self._send(message)

    def receiver(self) -> Receive:
        """Return what gives the request from its beginning."""
        place = 0

        async def receive() -> Message:
            nonlocal place
            if place == len(self._kept):
                message = await self._receive()
                self.left |= message["type"] == "http.disconnect"
                self._size += len(message.get("body", b""))
                if self._size > KEPT_BYTES:
                    self._kept.clear()
                    place = 0
                    return message
                self._kept.append(message)
            place += 1
            return self._kept[place - 1]

        return receive


async def _send_problem(send: Send) -> None:
    body = encode(PROBLEM.body)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **PROBLEM.headers}
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": PROBLEM.status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})
