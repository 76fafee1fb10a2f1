"""Route changes of entities: add or replace one, delete one, and list what was changed."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response

from engine.queries.fields import Name
from serve.http.auth import Access
from serve.http.exchange import decoded, respond, spend
from serve.http.openapi import answers, body
from serve.http.overlay_requests import EntityDeleted, OverlayListing, Upserted, UpsertRequest
from serve.http.overlay_service import OverlayService
from serve.http.requests import checked
from serve.http.rights import needs
from serve.http.service import Service
from serve.overlay.store import MAX_DELETED, MAX_ENTITIES

MAX_LISTED = 1000
"""Entries of one answer."""

Given = Annotated[Name, Path(description="the entity's name")]


def add_overlay(app: FastAPI, service: Service, access: Access, overlay: OverlayService) -> None:
    """Add the routes to the application; without a store they say so."""

    @app.put(
        "/v1/entities/{given:path}",
        response_model=None,
        responses=answers(Upserted, "the entity is found from now on", 400, 404, 409, 422, 429, 503, 504),
        openapi_extra=body(UpsertRequest),
    )
    @needs("publish")
    async def put_entity(request: Request, given: Given) -> Response:
        """Add an entity, or replace one, without a new bundle.

        It is found by this replica once this is answered, and within a second by all. It counts as a query.
        """
        asked = checked(UpsertRequest, await decoded(request))
        trace = await spend(request, service, access)
        return await respond(await overlay.put(given, asked, trace.caller, trace))

    @app.delete(
        "/v1/entities/{given:path}",
        response_model=None,
        responses=answers(EntityDeleted, "no answer has it from now on", 404, 409, 422, 429, 503),
    )
    @needs("publish")
    async def delete_entity(request: Request, given: Given) -> Response:
        """Delete an entity, of the bundle or added, by its name: no method answers it any more."""
        trace = await spend(request, service, access, queries=0)
        return await respond(await overlay.delete(given, trace.caller))

    @app.get(
        "/v1/overlay",
        response_model=None,
        responses=answers(OverlayListing, "what was changed", 404, 422, 429, 503),
    )
    @needs("read")
    async def list_overlay(
        request: Request,
        offset: Annotated[int, Query(ge=0, le=MAX_ENTITIES + MAX_DELETED)] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    ) -> Response:
        """List the entities that were added or deleted since the bundle was made, last changed first."""
        await spend(request, service, access, queries=0)
        return await respond(await overlay.listing(offset, limit), large=True)
