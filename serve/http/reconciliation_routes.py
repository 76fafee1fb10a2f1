"""Route the requests of the reconciliation protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Query, Request, Response

from engine.queries.fields import Name
from serve.http.auth import Access
from serve.http.errors import SHOWN, ProblemError, invalid
from serve.http.exchange import note_asked, respond, spend
from serve.http.middleware import POLICY
from serve.http.openapi import FOREIGN_CLIENTS, answers, content
from serve.http.reconciliation import SUGGESTED, Reconciliation, manifest
from serve.http.reconciliation_shapes import (
    MAX_PROPERTIES,
    Batch,
    ExtendQuery,
    Extension,
    Flyout,
    Manifest,
    ProposedProperties,
    ReconcileQuery,
    Suggestions,
)
from serve.http.requests import M, Prefix, checked, decode
from serve.http.rights import needs
from serve.http.service import Service

FORM = "application/x-www-form-urlencoded"
MAX_FIELDS = 16
"""Fields of a form that are read."""

OF_OTHERS: dict[str, Any] = {FOREIGN_CLIENTS: True}
"""Marks routes whose clients add parameters of their own, which are not refused."""

Cursor = Annotated[int, Query(ge=0, lt=1 << 31, description="suggestions passed over")]
Given = Annotated[Name, Query(description="name or alias")]
Part = Annotated[Prefix, Query(description="what was typed")]


def add_reconciliation(app: FastAPI, service: Service, access: Access) -> None:
    """Add the routes of the protocol to the application."""
    _add_matching(app, service, access)
    _add_suggestions(app, service, access)
    _add_previews(app, service, access)


def _add_matching(app: FastAPI, service: Service, access: Access) -> None:
    responses = answers(Batch, "by key of the query, its candidates", 400, 422, 429)
    responses[200]["model"] = Manifest | Batch | Extension

    async def matched(request: Request, form: Mapping[str, str]) -> Response:
        if form.get("queries") and form.get("extend"):
            raise invalid("queries or extend, not both", "extend")
        if text := form.get("queries"):
            queries = _queries(text, service.settings.max_queries)
            # A name that is not known is searched for, which takes as long as a query.
            unknown = sum(not service.knows(one.query) for one in queries.values())
            await spend(request, service, access, unknown)
            return await respond(await asyncio.to_thread(_candidates, service, queries), large=True)
        if text := form.get("extend"):
            wanted = _checked("extend", ExtendQuery, _decoded("extend", text))
            await spend(request, service, access, queries=0)
            reconciliation = Reconciliation(service.snapshot)
            return await respond(await asyncio.to_thread(reconciliation.extended, wanted), large=True)
        raise invalid("the form has neither queries nor extend", "queries")

    @app.get("/v1/reconcile", response_model=None, responses=responses, openapi_extra=OF_OTHERS)
    @needs("read")
    async def reconcile(
        request: Request,
        queries: Annotated[str, Query(description="JSON: by key, query, type, limit, properties")] = "",
        extend: Annotated[str, Query(description="JSON: ids and properties")] = "",
    ) -> Response:
        """Describe the reconciliation service, or answer queries as POST does."""
        if not queries and not extend:
            base = str(request.base_url).rstrip("/")
            return await respond(manifest(base, bool(service.settings.tokens)))
        return await matched(request, {"queries": queries, "extend": extend})

    fields = {"queries": {"type": "string"}, "extend": {"type": "string"}}
    form = {"required": True, "content": {FORM: {"schema": {"type": "object", "properties": fields}}}}

    @app.post(
        "/v1/reconcile",
        response_model=None,
        responses=responses,
        openapi_extra={**OF_OTHERS, "requestBody": form},
    )
    @needs("read")
    async def reconcile_form(request: Request) -> Response:
        """Return the entities that names may mean, or the values of attributes of entities."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != FORM:
            raise invalid(f"the body must come with `content-type: {FORM}`")
        try:
            text = (await request.body()).decode("utf-8")
            note_asked(request, text, len(text))
            given = parse_qs(text, errors="strict", max_num_fields=MAX_FIELDS)
        except ValueError:
            raise invalid(f"the body is no form in UTF-8 of up to {MAX_FIELDS} fields") from None
        return await matched(request, {name: values[0] for name, values in given.items()})


def _add_suggestions(app: FastAPI, service: Service, access: Access) -> None:
    found = answers(Suggestions, "suggestions, best first", 422, 429)

    @app.get("/v1/reconcile/suggest/entity", response_model=None, responses=found, openapi_extra=OF_OTHERS)
    @needs("read")
    async def suggest_entity(request: Request, prefix: Part = "", cursor: Cursor = 0) -> Response:
        """Complete the name of an entity, misspelt ones too."""
        await spend(request, service, access, queries=0)
        reconciliation = Reconciliation(service.snapshot)
        return await respond(
            {"result": await asyncio.to_thread(reconciliation.suggested_entities, prefix, cursor)}
        )

    @app.get("/v1/reconcile/suggest/property", response_model=None, responses=found, openapi_extra=OF_OTHERS)
    @needs("read")
    async def suggest_property(prefix: Part = "", cursor: Cursor = 0) -> Response:
        """Complete the name of an attribute."""
        return await respond(
            {"result": Reconciliation(service.snapshot).suggested_properties(prefix, cursor)}
        )

    @app.get("/v1/reconcile/suggest/type", response_model=None, responses=found, openapi_extra=OF_OTHERS)
    @needs("read")
    async def suggest_type(prefix: Part = "", cursor: Cursor = 0) -> Response:
        """Complete the name of a type: of what entities are."""
        return await respond({"result": Reconciliation(service.snapshot).suggested_types(prefix, cursor)})

    @app.get(
        "/v1/reconcile/properties",
        response_model=None,
        responses=answers(ProposedProperties, "attributes", 422),
        openapi_extra=OF_OTHERS,
    )
    @needs("read")
    async def properties(
        type: Annotated[Prefix, Query(description="of the entities; any have the same attributes")] = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PROPERTIES)] = SUGGESTED,
    ) -> Response:
        """Propose attributes to add as columns."""
        proposed = Reconciliation(service.snapshot).proposed(limit)
        return await respond({"properties": proposed, "type": type, "limit": limit})


def _add_previews(app: FastAPI, service: Service, access: Access) -> None:
    html = {"text/html": {"schema": {"type": "string"}}}
    framed_by = " ".join(service.settings.allowed_origins) or "'none'"

    @app.get(
        "/v1/reconcile/preview",
        response_model=None,
        responses=content("a small page", html, 404, 422, 429),
        openapi_extra=OF_OTHERS,
    )
    @needs("read")
    async def preview(request: Request, id: Given) -> Response:
        """Describe an entity on a small page, which allowed origins may show in a frame."""
        await spend(request, service, access, queries=0)
        reconciliation = Reconciliation(service.snapshot)
        body = await asyncio.to_thread(lambda: reconciliation.html(reconciliation.entity(id)))
        page = f"<!doctype html><meta charset='utf-8'><title>seedset</title>{body}"
        policy = f"default-src 'none'; frame-ancestors {framed_by}"
        return Response(page, media_type="text/html", headers={POLICY: policy})

    @app.get(
        "/v1/reconcile/flyout",
        response_model=None,
        responses=answers(Flyout, "a part of a page", 404, 422, 429),
        openapi_extra=OF_OTHERS,
    )
    @needs("read")
    async def flyout(request: Request, id: Given) -> Response:
        """Describe a suggested entity in HTML."""
        await spend(request, service, access, queries=0)
        reconciliation = Reconciliation(service.snapshot)
        body = await asyncio.to_thread(lambda: reconciliation.html(reconciliation.entity(id)))
        return await respond({"id": id, "html": body})


def _queries(text: str, most: int) -> dict[str, ReconcileQuery]:
    """Return the queries of a batch by their keys.

    Raises:
        ProblemError: names the query and the field that are wrong.
    """
    given = _decoded("queries", text)
    if not isinstance(given, dict) or not 1 <= len(given) <= most:
        raise invalid(f"queries: a JSON object of 1..{most} queries by their keys", "queries")
    found = {}
    for key, one in given.items():
        found[key] = query = _checked(f"queries.{key[:SHOWN]}", ReconcileQuery, one)
        if not query.query and not query.properties:
            raise invalid("a query has a text or properties", f"queries.{key[:SHOWN]}")
    return found


def _candidates(service: Service, queries: Mapping[str, ReconcileQuery]) -> dict[str, Any]:
    reconciliation = Reconciliation(service.snapshot)
    return {key: {"result": reconciliation.candidates(one)} for key, one in queries.items()}


def _decoded(field: str, text: str) -> Any:
    try:
        return decode(text.encode("utf-8", "replace"))
    except ProblemError as error:
        raise ProblemError(replace(error.problem, field=field)) from None


def _checked(field: str, model: type[M], given: Any) -> M:
    """Return a decoded object as its model; an error says in which field of the form it is."""
    try:
        return checked(model, given)
    except ProblemError as error:
        inner = error.problem.field
        raise ProblemError(replace(error.problem, field=f"{field}.{inner}" if inner else field)) from None
