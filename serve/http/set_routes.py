"""Route requests for named sets: what curators accepted and rejected, with its history."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from serve.http.auth import Access
from serve.http.exchange import decoded, respond, spend
from serve.http.openapi import answers, body
from serve.http.requests import checked
from serve.http.review_routes import add_reviews
from serve.http.rights import needs
from serve.http.service import Service
from serve.http.set_requests import (
    MAX_CURATOR,
    ChangeSetRequest,
    CreateSetRequest,
    ImportSetRequest,
    SetAgreement,
    SetChanged,
    SetDeleted,
    SetEvents,
    SetExport,
    SetId,
    SetList,
    WholeSet,
)
from serve.http.set_service import SetService
from serve.sets.access import Sets
from serve.sets.store import MAX_EVENTS, MAX_SETS

MAX_LISTED = 1000
"""Sets or events of one answer."""

Listed = Annotated[int, Query(ge=1, le=MAX_LISTED)]

READ_ERRORS = (404, 422, 429, 503)
WRITE_ERRORS = (400, 404, 409, 422, 429, 503)


def add_sets(app: FastAPI, service: Service, access: Access, sets: Sets | None) -> None:
    """Add the routes for named sets to the application; without a store they say so."""
    answering = SetService(service, sets)
    _add_reading(app, service, access, answering)
    _add_changes(app, service, access, answering)
    add_reviews(app, service, access, answering)


def _add_reading(app: FastAPI, service: Service, access: Access, answering: SetService) -> None:
    @app.get("/v1/sets", response_model=None, responses=answers(SetList, "the sets", *READ_ERRORS))
    @needs("read")
    async def list_sets(
        request: Request, offset: Annotated[int, Query(ge=0, le=MAX_SETS)] = 0, limit: Listed = 100
    ) -> Response:
        """List the named sets, last changed first."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.store("listing", offset, limit))

    @app.get("/v1/sets/{set_id}", response_model=None, responses=answers(WholeSet, "the set", *READ_ERRORS))
    @needs("read")
    async def read_set(request: Request, set_id: SetId) -> Response:
        """Return a set: its question, and who accepted and rejected what, when and why."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.read(set_id), large=True)

    @app.get(
        "/v1/sets/{set_id}/events",
        response_model=None,
        responses=answers(SetEvents, "the events", *READ_ERRORS),
    )
    @needs("read")
    async def set_events(
        request: Request,
        set_id: SetId,
        after: Annotated[int, Query(ge=0, le=MAX_EVENTS, description="the last version that is known")] = 0,
        limit: Listed = 100,
    ) -> Response:
        """List the changes of a set, oldest first."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.store("events", set_id, after, limit), large=True)

    @app.get(
        "/v1/sets/{set_id}/export",
        response_model=None,
        responses=answers(SetExport, "the set", *READ_ERRORS),
    )
    @needs("read")
    async def export_set(request: Request, set_id: SetId) -> Response:
        """Return a set with all its events, to be kept, or imported elsewhere."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.store("export", set_id), large=True)

    @app.get(
        "/v1/sets/{set_id}/agreement",
        response_model=None,
        responses=answers(SetAgreement, "how far curators agree", *READ_ERRORS),
    )
    @needs("read")
    async def set_agreement(
        request: Request,
        set_id: SetId,
        curator: Annotated[
            str,
            Query(max_length=MAX_CURATOR, description="who; where there are tokens, the token's name counts"),
        ] = "",
        limit: Listed = 100,
    ) -> Response:
        """Say how far the curators of a set agree, where they do not, and what one of them has not judged."""
        trace = await spend(request, service, access, queries=0)
        found = await answering.agreement(set_id, trace.caller or curator, limit)
        return await respond(found, large=True)


def _add_changes(app: FastAPI, service: Service, access: Access, answering: SetService) -> None:
    @app.post(
        "/v1/sets",
        response_model=None,
        responses=answers(WholeSet, "the set", *WRITE_ERRORS),
        openapi_extra=body(CreateSetRequest),
    )
    @needs("curate")
    async def create_set(request: Request) -> Response:
        """Make an empty set of a name that no other has."""
        asked = checked(CreateSetRequest, await decoded(request))
        trace = await spend(request, service, access, queries=0)
        return await respond(await answering.create(asked, trace.caller or asked.by))

    @app.post(
        "/v1/sets/import",
        response_model=None,
        responses=answers(WholeSet, "the set", *WRITE_ERRORS),
        openapi_extra=body(ImportSetRequest),
    )
    @needs("curate")
    async def import_set(request: Request) -> Response:
        """Make a set of what an export holds, with its history."""
        asked = checked(ImportSetRequest, await decoded(request))
        trace = await spend(request, service, access, queries=0)
        return await respond(await answering.load(asked, trace.caller), large=True)

    @app.post(
        "/v1/sets/{set_id}/events",
        response_model=None,
        responses=answers(SetChanged, "the set's new version", *WRITE_ERRORS),
        openapi_extra=body(ChangeSetRequest),
    )
    @needs("curate")
    async def change_set(request: Request, set_id: SetId) -> Response:
        """Change a set: judge entities, rename it, keep its question, or undo an event.

        A change names the version of the set that it was made of. Where the set is newer, nothing is written:
        409 `set_conflict`, with the newer version in `suggestions`.
        """
        asked = checked(ChangeSetRequest, await decoded(request))
        trace = await spend(request, service, access, queries=0)
        return await respond(await answering.change(set_id, asked, trace.caller or asked.by))

    @app.delete(
        "/v1/sets/{set_id}",
        response_model=None,
        responses=answers(SetDeleted, "it is gone", 404, 409, 422, 429, 503),
    )
    @needs("curate")
    async def delete_set(
        request: Request, set_id: SetId, version: Annotated[int, Query(ge=1, le=MAX_EVENTS)]
    ) -> Response:
        """Delete a set with its history, if it is at this version still."""
        await spend(request, service, access, queries=0)
        await answering.store("delete", set_id, version)
        return await respond({"deleted": set_id})
