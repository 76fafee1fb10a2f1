"""Route HTTP requests to a :class:`~serve.http.service.Service`. Knows no Ray."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from functools import partial

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Scope

from engine.errors import UserError
from serve.audit.recorder import Recorder
from serve.http.audit_routes import add_audit, entry_of
from serve.http.auth import Access
from serve.http.entity_routes import add_entities
from serve.http.errors import SHOWN, Problem, invalid, invalid_fields, problem_of
from serve.http.exchange import LARGE_BODY, decoded, respond, spend
from serve.http.export_routes import add_exports
from serve.http.heads import HostCheck
from serve.http.maps import add_map
from serve.http.middleware import (
    JSON,
    AuthMiddleware,
    BodyLimitMiddleware,
    DrainMiddleware,
    HeadMethodMiddleware,
    PrefixMiddleware,
    RequestHeadMiddleware,
    RequestLogMiddleware,
    answer,
)
from serve.http.openapi import FOREIGN_CLIENTS, answers, body, content, document, event_schema
from serve.http.overlay_routes import add_overlay
from serve.http.overlay_service import OverlayService
from serve.http.reconciliation_routes import add_reconciliation
from serve.http.representations import EntityTagMiddleware, ProblemDetailsMiddleware
from serve.http.requests import (
    BatchRequest,
    ExpandRequest,
    TypeRequest,
    checked,
    encode,
)
from serve.http.responses import (
    Answer,
    Attributes,
    BatchAnswer,
    BundleShape,
    CallerShape,
    Healthy,
    Methods,
    Ready,
    TypedText,
)
from serve.http.rights import check_declared, needs
from serve.http.service import FEW_QUERIES, MANY_RESULTS, Service
from serve.http.set_routes import add_sets
from serve.http.sse import EventStream
from serve.http.static import INDEX, PageFiles
from serve.http.tokens import UNUSABLE, KnownTokens
from serve.http.trace import Trace
from serve.http.typing import marked_text, type_text
from serve.limits.accounts import Limit
from serve.sets.access import Sets
from serve.telemetry.logs import log_withheld

COMPRESSED = 16 << 10
"""Bytes from which an answer is compressed for clients that take it: less is not worth the time."""

QUERY_ERRORS = (400, 404, 409, 422, 429, 503, 504)


def create_app(
    service: Service,
    clock: Callable[[], float] = time.monotonic,
    sets: Sets | None = None,
    recorder: Recorder | None = None,
    overlay: OverlayService | None = None,
    limit: Limit | None = None,
    tokens: KnownTokens | None = None,
) -> FastAPI:
    """Return the application: routes, JSON errors, tokens, limits, the page.

    Args:
        service: what answers.
        clock: by which the rates of callers are kept; monotonic, in seconds.
        sets: the store of named sets, if one is kept.
        recorder: takes what is asked, for the audit log, if one is kept.
        overlay: what adds and deletes entities, if that is done.
        limit: counts queries for several replicas; None: this application counts its own.
        tokens: that let in; None: those of the settings, as they are.
    """
    # No docs pages: their scripts come from a CDN, and nothing here needs the network.
    given = [Depends(check_parameters)]
    app = FastAPI(
        title="seedset",
        openapi_url=None,
        redirect_slashes=False,
        dependencies=given,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their methods
    )
    settings = service.settings
    access = Access(settings, clock, limit, tokens)
    _add_expansion(app, service, access)
    add_map(app, service, access)
    add_entities(app, service, access)
    add_overlay(app, service, access, overlay or OverlayService(service))
    add_exports(app, service, access)
    add_reconciliation(app, service, access)
    add_sets(app, service, access, sets)
    add_audit(app, service, access, None if recorder is None else recorder.audit)
    _add_listings(app, service)
    _add_state(app, service, access)
    _add_errors(app)
    described = encode(document(app, settings))

    @app.get("/openapi.json", include_in_schema=False)
    @needs("open")
    async def openapi() -> Response:
        return Response(described, media_type=JSON)

    _add_page(app)
    check_declared(app.routes)
    _add_layers(app, service, access, recorder)
    return app


def _add_layers(app: FastAPI, service: Service, access: Access, recorder: Recorder | None) -> None:
    """Add what every request passes through before and after its route."""
    settings, metrics = service.settings, service.metrics
    app.add_middleware(EntityTagMiddleware)  # added first, so it is innermost
    # It leaves event streams alone: they would wait for its buffer.
    app.add_middleware(
        GZipMiddleware, minimum_size=COMPRESSED, compresslevel=1, thread_minimum_size=LARGE_BODY
    )
    app.add_middleware(
        BodyLimitMiddleware,
        max_bytes=settings.max_body_bytes,
        timeout_s=settings.body_timeout_s,
        metrics=metrics,
    )
    app.add_middleware(AuthMiddleware, access=access, routes=app.routes)
    app.add_middleware(DrainMiddleware, service=service, routes=app.routes)
    app.add_middleware(PrefixMiddleware)
    hosts = HostCheck(settings.allowed_hosts, access.tokens.wanted)
    app.add_middleware(RequestHeadMiddleware, hosts=hosts)
    if settings.allowed_origins:
        # Outside of tokens: a browser asks first whether it may send one. Tokens are no cookies, so that no
        # page can use one that it was not given.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["authorization", "content-type", "x-request-id"],
            expose_headers=["x-request-id", "retry-after", "etag", "x-degraded"],
        )
    noted = None if recorder is None else partial(_record, recorder)
    app.add_middleware(RequestLogMiddleware, metrics=metrics, noted=noted)
    app.add_middleware(ProblemDetailsMiddleware)
    app.add_middleware(HeadMethodMiddleware)  # added last, so it is outermost


def _record(recorder: Recorder, scope: Scope, trace: Trace, status: int, seconds: float) -> None:
    entry = entry_of(scope, trace, status, seconds)
    if entry is not None:
        recorder.record(entry, trace.asked_bytes)


def _add_expansion(app: FastAPI, service: Service, access: Access) -> None:
    about = "ranked entities, best first"

    @app.post(
        "/v1/expand",
        response_model=None,
        responses=answers(Answer, about, *QUERY_ERRORS),
        openapi_extra=body(ExpandRequest),
    )
    @needs("read")
    async def expand(request: Request) -> Response:
        """Entities like the positive seeds and unlike the negative ones, best first."""
        asked = checked(ExpandRequest, await decoded(request))
        trace = await spend(request, service, access)
        found = await service.expand(asked, trace)
        return await respond(found, large=len(found["results"]) > MANY_RESULTS)

    @app.post(
        "/v1/expand/batch",
        response_model=None,
        responses=answers(BatchAnswer, "an answer or an error for each query", *QUERY_ERRORS),
        openapi_extra=body(BatchRequest),
    )
    @needs("read")
    async def expand_batch(request: Request) -> Response:
        """Answer several queries; ``results`` in their order, each an answer or an ``error``."""
        batch = checked(BatchRequest, await decoded(request))
        service.check_size(batch)
        trace = await spend(request, service, access, len(batch.queries))
        return await respond(await service.expand_batch(batch, trace), large=len(batch.queries) > FEW_QUERIES)

    @app.post(
        "/v1/type",
        response_model=None,
        responses=answers(TypedText, "the types of each mention", 400, 404, 422, 429, 503, 504),
        openapi_extra=body(TypeRequest),
    )
    @needs("read")
    async def type_mentions(request: Request) -> Response:
        """Say what each marked mention of a text is, by the bundle's typing model."""
        asked = checked(TypeRequest, await decoded(request))
        marked = marked_text(asked, service.settings.max_queries)
        trace = await spend(request, service, access, len(marked.spans))
        found = await type_text(service, marked, asked.deadline_ms, trace)
        return await respond(found, large=len(marked.spans) > FEW_QUERIES)

    stream_of = {"text/event-stream": {"schema": event_schema()}}

    @app.post(
        "/v1/expand/stream",
        response_model=None,
        responses=content("events: stage, round; then one answer or error", stream_of, *QUERY_ERRORS),
        openapi_extra=body(ExpandRequest),
    )
    @needs("read")
    async def expand_stream(request: Request) -> Response:
        """Stream the progress of a query as server-sent events; a wrong query gets an ordinary error.

        ``stage`` holds stage, seconds, candidates; ``round`` (of generation) stage, number, new, total;
        the last event is ``answer`` (as /v1/expand answers) or ``error``.
        """
        asked = checked(ExpandRequest, await decoded(request))
        return EventStream(await service.stream(asked, await spend(request, service, access)))


def _add_listings(app: FastAPI, service: Service) -> None:
    @app.get(
        "/v1/attributes", response_model=None, responses=answers(Attributes, "attributes and their values")
    )
    @needs("read")
    async def attributes() -> Response:
        """List the attributes that a query may filter by, and their most frequent values."""
        return await respond(service.snapshot.attributes, large=True)

    @app.get("/v1/methods", response_model=None, responses=answers(Methods, "the methods"))
    @needs("read")
    async def methods() -> Response:
        """List the methods served, and the stages of each."""
        return await respond(service.listing())

    @app.get("/v1/bundle", response_model=None, responses=answers(BundleShape, "the bundle"))
    @needs("read")
    async def bundle() -> Response:
        """Describe the bundle that is served and what it was made from."""
        return await respond(service.bundle())


def _add_state(app: FastAPI, service: Service, access: Access) -> None:
    @app.get("/healthz", response_model=None, responses=answers(Healthy, "it answers"))
    @needs("open")
    async def healthz() -> Response:
        """Say that the process answers, and whether it knows its tokens."""
        tokens = {"tokens": UNUSABLE} if access.tokens.problem else {}
        return await respond({"status": "ok", "bundle": service.snapshot.id, **tokens})

    responses = answers(Ready, "every stage answers")
    responses[503] = {"model": Ready, "description": "a stage does not answer"}

    @app.get("/readyz", response_model=None, responses=responses)
    @needs("open")
    async def readyz() -> Response:
        """Report whether every stage answers."""
        stages = await service.readiness()
        ready = all(state == "ok" for state in stages.values())
        return await respond({"ready": ready, "stages": dict(stages)}, 200 if ready else 503)

    @app.get("/v1/caller", response_model=None, responses=answers(CallerShape, "whose token it is"))
    @needs("read")
    async def caller(request: Request) -> Response:
        """Say whose token the request has and what it may do; without tokens everybody may do all."""
        trace: Trace = request.state.trace
        return await respond({"name": trace.caller, "rights": trace.rights})

    metrics_text = {"text/plain": {"schema": {"type": "string"}}}

    @app.get("/metrics", response_model=None, responses=content("the text format", metrics_text))
    @needs("read")
    async def metrics() -> Response:
        """Metrics for Prometheus."""
        rendered = await service.metrics_text()
        return Response(rendered, media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_page(app: FastAPI) -> None:
    files = PageFiles()

    # Routes, not a mount: the metrics and the log name a request by its route.
    @app.get("/", include_in_schema=False)
    @needs("open")
    async def index(request: Request) -> Response:
        return await files.get_response(INDEX, request.scope)

    @app.get("/page/{name}", include_in_schema=False)
    @needs("open")
    async def page(request: Request, name: str) -> Response:
        return await files.get_response(name, request.scope)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(UserError)
    async def user_error(request: Request, error: UserError) -> Response:
        log_withheld(error, request_id=request.state.trace.request_id)
        return answer(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid_parameters(_: Request, error: RequestValidationError) -> Response:
        return answer(invalid_fields(error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> Response:
        codes = {404: "not_found", 405: "method_not_allowed"}
        problem = Problem(codes.get(error.status_code, "invalid_request"), error.detail, error.status_code)
        response = answer(problem)
        response.headers.update(error.headers or {})
        if response.headers.get("allow") == "GET":
            response.headers["allow"] = "GET, HEAD"
        return response


async def check_parameters(request: Request) -> None:
    """Refuse what stands after ``?`` and is no parameter of the route, or one that is given twice.

    What belongs to the page, or to another's protocol, is left alone: browsers, proxies and clients append
    what is theirs.

    Raises:
        ProblemError: names the parameter, and the one that may have been meant.
    """
    route = request.scope["route"]
    if not route.include_in_schema or FOREIGN_CLIENTS in (route.openapi_extra or {}):
        return
    known = [field.alias for field in route.dependant.query_params]
    seen = set()
    for name, _ in request.query_params.multi_items():
        shown = name[:SHOWN]
        if name not in known:
            close = difflib.get_close_matches(shown.casefold(), known)
            there = f"there are {', '.join(known)}" if known else "this route has none"
            hint = f"did you mean {close[0]}?" if close else there
            raise invalid(f"no parameter is called {shown!r}; {hint}", shown, close)
        if name in seen:
            raise invalid(f"{name} is given a second time", name)
        seen.add(name)
