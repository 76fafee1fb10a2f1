"""Route requests for a set as a file: of an answer, or of names that were chosen."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response

from engine.errors import UnknownEntityError
from engine.queries.set_formats import FORMATS, Format, Member, SetName, ending, media_type, written
from engine.stages.membership import PROBABILITY, PROPOSED
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.auth import Access
from serve.http.errors import ProblemError, invalid, problem_of
from serve.http.exchange import decoded, spend
from serve.http.openapi import body, content
from serve.http.requests import ExpandRequest, LookupRequest, Prefix, checked
from serve.http.rights import needs
from serve.http.service import Service

Kind = Annotated[Format, Query(alias="format", description="csv: also for spreadsheets; patterns: Prodigy's")]
Label = Annotated[Prefix, Query(description="the set's name: the label of patterns, the scheme's of SKOS")]
Proposed = Annotated[bool, Query(description="only what is proposed as the set")]

DEGRADED = "x-degraded"
"""The header that says what an answer lacks, where there is no place for it in the file."""

_FILES: Mapping[str, Any] = {media_type(kind): {"schema": {"type": "string"}} for kind in FORMATS}


def add_exports(app: FastAPI, service: Service, access: Access) -> None:
    """Add the routes for files of sets to the application."""

    @app.post(
        "/v1/expand/export",
        response_model=None,
        responses=content("a file", _FILES, 400, 404, 409, 422, 429, 503, 504),
        openapi_extra=body(ExpandRequest),
    )
    @needs("read")
    async def expand_export(
        request: Request, kind: Kind, label: Label = "", proposed: Proposed = False
    ) -> Response:
        """Answer a query as /v1/expand does, with a file: a table, patterns, or a SKOS scheme."""
        asked = checked(ExpandRequest, await decoded(request))
        trace = await spend(request, service, access)
        snapshot = service.snapshot  # the one that answers: nothing is awaited in between
        answer = await service.expand(asked, trace)
        results = answer["results"]
        if proposed:
            if PROPOSED not in answer["counts"]:
                raise invalid(f"the method {answer['method']} proposes no set; `default` does", "proposed")
            results = results[: answer["counts"][PROPOSED]]

        def file() -> bytes:
            members = [_member(snapshot, one["id"], one) for one in results]
            return written(kind, members, named(request, label))

        lacking = "; ".join(answer["degraded"]).encode("ascii", "replace").decode()
        return _attached(await asyncio.to_thread(file), kind, {DEGRADED: lacking} if lacking else {})

    @app.post(
        "/v1/entities/export",
        response_model=None,
        responses=content("a file", _FILES, 400, 422, 429),
        openapi_extra=body(LookupRequest),
    )
    @needs("read")
    async def entities_export(request: Request, kind: Kind, label: Label = "") -> Response:
        """Write entities that were chosen, by name or alias, as a file, each once."""
        names = checked(LookupRequest, await decoded(request)).names
        await spend(request, service, access, int(not all(service.knows(name) for name in names)))
        snapshot = service.snapshot

        def file() -> bytes:
            entities = dict.fromkeys(_resolved(snapshot, names))
            return written(kind, [_member(snapshot, one) for one in entities], named(request, label))

        return _attached(await asyncio.to_thread(file), kind, {})


def named(request: Request, label: str) -> SetName:
    """Return how a set is named: in SKOS, below the addresses of this service's entities."""
    return SetName(label, f"{request.base_url}v1/entities/")


def _attached(file: bytes, kind: Format, headers: Mapping[str, str]) -> Response:
    disposition = f'attachment; filename="set{ending(kind)}"'
    return Response(
        file, media_type=media_type(kind), headers={"content-disposition": disposition, **headers}
    )


def _resolved(snapshot: BundleSnapshot, names: Sequence[str]) -> list[int]:
    """Return the entities of names; the first that is unknown is refused (ProblemError)."""
    found = []
    for place, name in enumerate(names):
        try:
            found.append(snapshot.vocabulary.resolve(name, f"names.{place}"))
        except UnknownEntityError as error:
            raise ProblemError(problem_of(error, f"names.{place}")) from None
    return found


def _member(snapshot: BundleSnapshot, entity: int, result: Mapping[str, Any] | None = None) -> Member:
    """Return an entity of a set, with its place in an answer where it has one."""
    own = result or {}
    return Member(
        snapshot.vocabulary.names[entity],
        snapshot.vocabulary.aliases[entity],
        snapshot.catalogue.description(entity),
        snapshot.catalogue.attributes_of(entity),
        own.get("rank"),
        own.get("score"),
        own.get("evidence", {}).get(PROBABILITY),
    )
