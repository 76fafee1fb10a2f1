"""Refusing at the door what the house refuses anyway. An ASGI layer for Serve's HTTP proxies.

A refusal by the ingress costs nearly as much as a quick answer: it crosses the proxy and a process border
both ways. Beyond its capacity a service of quick answers would spend itself on saying no. So the proxy
looks, twice a second, at what became of the expansions that it passed on. Where the ingress refused more
than a few, the proxy passes on little more than what was let in, and refuses the rest itself; where it did
not, the proxy passes on half as much again, until it need not count any more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.errors import Problem
from serve.http.requests import encode

TICK_S = 0.5
"""Between two looks."""

LEAST = 10
"""Decisions since the last look below which they tell nothing: refusals of a slow service cost little."""

TOLERATED = 0.02
"""Share of refusals below which more is passed on; less than K brings about."""

K = 1.05
"""The ingress still gets so many times what it lets in: it decides, and it must see when it could do more."""

GROWTH = 1.5
LEAST_RATE = 20.0
"""Requests a second that are passed on however many were refused."""

BURST_S = 0.02
"""What may come at once, in seconds of the rate."""

PREFIX = "/v1/expand"

PROBLEM = Problem("overloaded", "too much to do; try again in 1 s", 503, retry_after_s=1)


class Throttle:
    """Passes on what the application behind it will probably take.

    Args:
        app: what is behind.
        clock: seconds that only grow.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._rate = math.inf
        self._tokens, self._filled, self._looked = 0.0, clock(), clock()
        self._let_in = self._refused = self._came = 0
        self._body = encode(PROBLEM.body)
        told = {"content-type": "application/json", "content-length": str(len(self._body)), **PROBLEM.headers}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        if not self._passes():
            await self._refuse(send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                refused = message["status"] == PROBLEM.status
                self._refused += refused
                self._let_in += not refused
            await send(message)

        await self._app(scope, receive, noted)

    def _passes(self) -> bool:
        now = self._clock()
        self._came += 1
        if now - self._looked >= TICK_S:
            self._look(now)
        if self._rate == math.inf:
            self._filled = now
            return True
        burst = max(1.0, self._rate * BURST_S)
        self._tokens = min(burst, self._tokens + (now - self._filled) * self._rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _look(self, now: float) -> None:
        """Set the rate by what became of what was passed on since the last look."""
        seconds, decided = now - self._looked, self._let_in + self._refused
        if decided >= LEAST and self._refused > TOLERATED * decided:
            self._rate = max(LEAST_RATE, K * self._let_in / seconds)
        elif self._rate > self._came / seconds:
            self._rate = math.inf
        else:
            self._rate *= GROWTH
        self._looked = now
        self._let_in = self._refused = self._came = 0

    async def _refuse(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": PROBLEM.status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})
