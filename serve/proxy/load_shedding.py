"""Shed load in Serve's HTTP proxies: refuse there what the ingress would refuse. An ASGI middleware.

A refusal by the ingress costs nearly as much as a quick answer: it crosses the proxy and a process border
both ways. Beyond its capacity a service of quick answers would spend itself on refusals. So the proxy
measures, twice a second, how many of the expansions that it passed on were accepted. Where the ingress
refused more than a few, the proxy passes on little more than were accepted, and refuses the rest itself;
where it did not, the proxy passes on half as much again, until it need not count any more.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.errors import Problem
from serve.http.requests import encode

TICK_S = 0.5
"""Time between two measurements."""

LEAST = 10
"""Fewest decisions that are evidence of overload: refusals of a slow service cost little."""

TOLERATED = 0.02
"""Share of refusals below which more is passed on; less than K brings about."""

K = 1.05
"""The ingress still gets so many times what it accepts: it decides, and it must see when it could do more."""

GROWTH = 1.5
LEAST_RATE = 20.0
"""Requests a second that are passed on however many were refused."""

BURST_S = 0.02
"""Depth of the token bucket, in seconds of the rate."""

EXPANSION = re.compile("/v1/expand(/batch|/stream)?$")
"""The end of a query's path: what stands before it is the prefix under which the application is served."""

PROBLEM = Problem("overloaded", "too much to do; try again in 1 s", 503, retry_after_s=1)


class LoadShedder:
    """A middleware that passes on what the application will probably accept.

    Args:
        app: the application.
        clock: monotonic, in seconds.
    """

    def __init__(self, app: ASGIApp, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._rate = math.inf
        self._tokens, self._filled, self._measured_at = 0.0, clock(), clock()
        self._accepted = self._refused = self._arrived = 0
        self._body = encode(PROBLEM.body)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(self._body)),
            **PROBLEM.headers,
        }
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 503."""
        if scope["type"] != "http" or not EXPANSION.search(scope["path"]):
            await self._app(scope, receive, send)
            return
        if not self._passes():
            await self._refuse(send)
            return

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                refused = message["status"] == PROBLEM.status
                self._refused += refused
                self._accepted += not refused
            await send(message)

        await self._app(scope, receive, noted)

    def _passes(self) -> bool:
        now = self._clock()
        self._arrived += 1
        if now - self._measured_at >= TICK_S:
            self._set_rate(now)
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

    def _set_rate(self, now: float) -> None:
        """Set the rate by how many of the requests passed on since the last measurement were accepted."""
        seconds, decided = now - self._measured_at, self._accepted + self._refused
        if decided >= LEAST and self._refused > TOLERATED * decided:
            self._rate = max(LEAST_RATE, K * self._accepted / seconds)
        elif self._rate > self._arrived / seconds:
            self._rate = math.inf
        else:
            self._rate *= GROWTH
        self._measured_at = now
        self._accepted = self._refused = self._arrived = 0

    async def _refuse(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": PROBLEM.status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body})
