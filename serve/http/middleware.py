"""Wrap every request: its id and its line in the log, the token, the limits of its body."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence

from opentelemetry.trace import Span
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.auth import Access
from serve.http.errors import Problem, ProblemError, internal
from serve.http.heads import TOO_LARGE, HostCheck, header_values, is_too_large, request_id_of, with_request_id
from serve.http.requests import encode
from serve.http.rights import OPEN, right_of, route_of
from serve.http.service import Service
from serve.http.trace import Trace
from serve.settings import RIGHTS, Right
from serve.telemetry.logs import log_event, logger
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import name_request, request_span

JSON = "application/json"

POLICY = "content-security-policy"

SECURITY = [
    # Nothing from another host, nothing inline, and no frame around the page.
    (POLICY.encode(), b"default-src 'self'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

WATCHED = ("/healthz", "/readyz", "/metrics")
"""Paths of routes for machines that watch the service, without the prefix of the application."""

STOPPING = Problem("unavailable", "the service is stopping; try again in 1 s", 503, retry_after_s=1)

UNMATCHED = "other"
"""The route of requests that no route is for, in the metrics and the log."""


def answer(problem: Problem) -> Response:
    """Return the response that reports a problem."""
    return Response(encode(problem.body), problem.status, dict(problem.headers), media_type=JSON)


class RequestLogMiddleware:
    """A layer that gives each request an id, counts and logs it; an exception becomes a plain 500.

    Args:
        app: the application.
        metrics: count it.
        noted: takes what the audit log needs, if there is one: the request, what is known of it, the status
            and the seconds.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        noted: Callable[[Scope, Trace, int, float], None] | None = None,
    ) -> None:
        self._app, self._metrics, self._noted = app, metrics, noted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace = Trace(request_id=request_id_of(scope))
        scope.setdefault("state", {})["trace"] = trace
        started, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = with_request_id(message["headers"], trace.request_id)
                own = {name for name, _ in headers}  # a route may have a policy of its own
                message["headers"] = [*headers, *(one for one in SECURITY if one[0] not in own)]
            await send(message)

        self._metrics.in_flight.inc()
        with request_span(scope["method"], scope["headers"]) as span:
            try:
                await self._app(scope, receive, noted)
            except Exception:
                logger.exception("request failed", extra={"request_id": trace.request_id})
                if not status:
                    await answer(internal(trace.request_id))(scope, receive, noted)
            finally:
                self._metrics.in_flight.dec()
                self._write(scope, trace, status, time.perf_counter() - started, span)

    def _write(self, scope: Scope, trace: Trace, status: int, seconds: float, span: Span | None) -> None:
        """Count a request and log its line. A status of 499: the caller left before there was an answer."""
        status = status or 499
        route = getattr(scope.get("route"), "path", UNMATCHED)
        name_request(
            span,
            scope["method"],
            route,
            status,
            request_id=trace.request_id,
            method=trace.method,
            bundle=trace.bundle,
            queries=trace.queries,
            degraded=trace.degraded,
        )
        self._metrics.answered(route, status, trace.method, seconds)
        if self._noted is not None:
            self._noted(scope, trace, status, seconds)
        log_event(
            "request",
            level=logging.WARNING if status >= 500 else logging.INFO,
            request_id=trace.request_id,
            route=route,
            method=trace.method,
            status=status,
            ms=round(1000 * seconds, 3),
            bundle=trace.bundle,
            queries=trace.queries,
            degraded=trace.degraded,
        )


class DrainMiddleware:
    """A layer that counts the requests under way, and refuses new ones once the service is stopping.

    Args:
        app: the application.
        service: that counts them.
        routes: of the application.
    """

    def __init__(self, app: ASGIApp, service: Service, routes: Sequence[BaseRoute]) -> None:
        self._app, self._service, self._routes = app, service, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on; those of machines that watch are answered to the end, and not waited for."""
        if scope["type"] != "http" or self._is_watched(scope):
            await self._app(scope, receive, send)
            return
        if self._service.draining:
            self._service.metrics.shed(STOPPING.code)
            await answer(STOPPING)(scope, receive, send)
            return
        self._service.under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._service.under_way -= 1

    def _is_watched(self, scope: Scope) -> bool:
        return getattr(route_of(scope, self._routes), "path", None) in WATCHED


class HeadMethodMiddleware:
    """The outermost layer: answers HEAD as GET is answered, without the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        await self._app({**scope, "method": "GET"}, receive, without_body)


class RequestHeadMiddleware:
    """A layer that checks the size of a request's head and the host that it names."""

    def __init__(self, app: ASGIApp, hosts: HostCheck) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http":
            problem = TOO_LARGE if is_too_large(scope) else self._hosts.problem(scope)
            if problem:
                await answer(problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)


class AuthMiddleware:
    """A layer that admits requests whose token has the right that the route needs.

    Args:
        app: the application.
        access: the tokens.
        routes: of the application, each with its right. An address that none is for needs the least.
    """

    def __init__(self, app: ASGIApp, access: Access, routes: Sequence[BaseRoute]) -> None:
        self._app, self._access, self._routes = app, access, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        route = route_of(scope, self._routes) if scope["type"] == "http" else None
        needed = _needed(route) if scope["type"] == "http" else None
        if needed is not None:
            trace: Trace = scope["state"]["trace"]
            trace.needed, trace.route = needed, route
            try:
                caller = self._access.caller(next(iter(header_values(scope, b"authorization")), None))
                trace.caller, trace.rights = caller
                self._access.check(caller, needed)
            except ProblemError as error:
                await answer(error.problem)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _needed(route: BaseRoute | None) -> Right | None:
    """Return the right that a request to a route, or to none, needs; None: it needs no token."""
    needed = RIGHTS[0] if route is None else right_of(route)
    return None if needed == OPEN else needed


class PrefixMiddleware:
    """A layer that sends who asks for the bare prefix under which we are served on to its ``/``.

    The page's addresses are relative to it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] == "http" and scope["path"] and scope["path"] == scope.get("root_path"):
            # Relative, so that it holds behind a proxy that puts a prefix of its own before ours.
            await RedirectResponse(f"{scope['path'].rpartition('/')[2]}/")(scope, receive, send)
            return
        await self._app(scope, receive, send)


class BodyLimitMiddleware:
    """A layer that reads a request's body before anything else is done: within its size, and its time."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float, metrics: Metrics) -> None:
        self._app, self._max, self._timeout_s, self._metrics = app, max_bytes, timeout_s, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            messages = await self._read(scope, receive)
        except ProblemError as error:
            self._metrics.shed(error.problem.code)
            await answer(error.problem)(scope, receive, send)
            return

        if messages[-1]["type"] == "http.disconnect":
            return  # the client has gone

        async def replayed() -> Message:
            return messages.popleft() if messages else await receive()

        await self._app(scope, replayed, send)

    async def _read(self, scope: Scope, receive: Receive) -> deque[Message]:
        """Return the messages of the body; the last may say that the client has left."""
        announced = (header_values(scope, b"content-length") or [b"0"])[0]
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self._max):
            raise self._too_large()
        messages: deque[Message] = deque()
        received = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                while not messages or messages[-1].get("more_body", False):
                    message = await receive()
                    received += len(message.get("body", b""))
                    if received > self._max:
                        raise self._too_large()
                    messages.append(message)
        except TimeoutError:
            reason = f"the body did not arrive within {self._timeout_s:g} s"
            raise ProblemError(Problem("slow_request", reason, 408)) from None
        return messages

    def _too_large(self) -> ProblemError:
        return ProblemError(Problem("too_large", f"a body holds at most {self._max} bytes", 413))
