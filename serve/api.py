"""The HTTP interface over a :class:`~serve.service.Service`. Knows no Ray."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from engine.errors import UnknownEntityError, UserError
from engine.vocabulary import MAX_NAME_LENGTH
from serve.errors import body_of, error_body, in_words
from serve.protocol import BatchRequest, ExpandRequest, encode
from serve.service import Service

logger = logging.getLogger("seedset.serve")

JSON = "application/json"


def create_app(service: Service) -> FastAPI:
    """Return the application: routes, JSON errors, limits."""
    # No docs pages: their scripts come from a CDN, and nothing here needs the network.
    app = FastAPI(title="seedset", docs_url=None, redoc_url=None)
    _add_expansion(app, service)
    _add_catalogue(app, service)
    _add_errors(app, service.settings.timeout_s)
    app.add_middleware(BodyLimit, max_bytes=service.settings.max_body_bytes)
    app.add_middleware(LastResort)  # added last, so it is outermost
    return app


async def respond(content: Any, status: int = 200) -> Response:
    """Return a JSON response, encoded off the event loop: an answer may hold thousands of rows."""
    return Response(await asyncio.to_thread(encode, content), status, media_type=JSON)


def _add_expansion(app: FastAPI, service: Service) -> None:
    @app.post("/v1/expand")
    async def expand(request: ExpandRequest) -> Response:
        """Entities like the positive seeds and unlike the negative ones, best first."""
        return await respond(await service.expand(request))

    @app.post("/v1/expand/batch")
    async def expand_batch(batch: BatchRequest) -> Response:
        """Several queries at once; ``results`` in their order, each an answer or an ``error``."""
        return await respond(await service.expand_batch(batch))


def _add_catalogue(app: FastAPI, service: Service) -> None:
    @app.get("/v1/entities")
    async def entities(
        prefix: Annotated[str, Query(max_length=MAX_NAME_LENGTH)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
    ) -> Response:
        """Entities with a name or an alias that begins with ``prefix``: autocompletion."""
        return await respond(await service.complete(prefix, limit))

    @app.get("/v1/entities/{given:path}")
    async def entity(given: str) -> Response:
        """One entity by name, alias or id."""
        try:
            return await respond(await service.entity(given))
        except UnknownEntityError as error:  # asked for by address, so it is not there: 404
            return await respond(body_of(error), 404)

    @app.get("/v1/methods")
    async def methods() -> Response:
        """The methods served, and the stages that each is made of."""
        return await respond(service.listing())

    @app.get("/v1/bundle")
    async def bundle() -> Response:
        """What is served and what it was made from."""
        return await respond(service.bundle())

    @app.get("/healthz")
    async def healthz() -> Response:
        """The application answers."""
        return await respond({"status": "ok", "bundle": service.manifest.id})


def _add_errors(app: FastAPI, timeout_s: float) -> None:
    @app.exception_handler(UserError)
    async def user_error(_: Request, error: UserError) -> Response:
        return await respond(body_of(error), error.status)

    @app.exception_handler(TimeoutError)
    async def timeout(_: Request, error: TimeoutError) -> Response:
        return await respond(error_body("timeout", f"no answer within {timeout_s:g} s"), 504)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        problems = error.errors()
        malformed = any(p["type"] == "json_invalid" for p in problems)
        kind, status = ("malformed_json", 400) if malformed else ("invalid_request", 422)
        return await respond(error_body(kind, in_words(problems)), status)

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        kinds = {404: "not_found", 405: "method_not_allowed", 413: "too_large"}
        body = error_body(kinds.get(error.status_code, "invalid_request"), str(error.detail))
        response = await respond(body, error.status_code)
        response.headers.update(error.headers or {})
        return response


class BodyLimit:
    """Refuses bodies above a limit, by their announced length or, failing that, as they arrive."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        too_large = error_body("too_large", f"a body holds at most {self._max} bytes")
        announced = dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > self._max:
            response = await respond(too_large, 413)
            await response(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max:
                raise HTTPException(413, too_large["error"]["message"])
            return message

        await self._app(scope, counted, send)


class LastResort:
    """Turns any other exception into a 500 with an id that is also in the log; no traceback."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        started = False

        async def noted(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            mark = uuid.uuid4().hex[:12]
            logger.exception("request %s failed: %s %s", mark, scope.get("method"), scope.get("path"))
            if started or scope["type"] != "http":
                return
            body = error_body("internal", f"internal error; the log has it under {mark}", id=mark)
            response = await respond(body, 500)
            await response(scope, receive, send)
