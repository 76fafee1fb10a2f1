"""Route requests for entities: search, look-up, what is known of one, images."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query, Request, Response

from engine.queries.fields import Name
from serve.http.auth import Access
from serve.http.errors import invalid
from serve.http.exchange import decoded, respond, spend
from serve.http.listings import EntityList, EntityParts, known_fields
from serve.http.openapi import answers, body, content
from serve.http.requests import Id, LookupRequest, Prefix, checked
from serve.http.resolve import LOOKUP_SUGGESTIONS
from serve.http.responses import Entities, EntityDetails, LookedUp
from serve.http.rights import needs
from serve.http.service import MANY_RESULTS, Service

MAX_ENTITIES = 1000
"""Entities of one answer."""

MAX_IMAGES = 8
"""Images of an entity at most: one a sentence."""

FOREVER = "private, max-age=31536000, immutable"

Sentences = Annotated[int, Query(ge=0, le=8)]
Neighbours = Annotated[int, Query(ge=0, le=50)]
Views = Annotated[Prefix, Query(description="views, with commas, of which its unit vectors are wanted")]


def add_entities(app: FastAPI, service: Service, access: Access) -> None:
    """Add the routes for entities to the application."""

    @app.get(
        "/v1/entities", response_model=None, responses=answers(Entities, "entities, best first", 422, 429)
    )
    @needs("read")
    async def entities(
        request: Request,
        search: Annotated[Prefix, Query(description="a name, words or parts of one, well spelt or not")] = "",
        prefix: Annotated[Prefix, Query(description="what a name or an alias begins with")] = "",
        offset: Annotated[int, Query(ge=0, lt=1 << 31, description="entities passed over")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ENTITIES)] = 10,
        fields: Annotated[Prefix, Query(description="of description, attributes; with commas")] = "",
    ) -> Response:
        """Search entities by name, best first, or complete a prefix; without either: all, by id."""
        if search and prefix:
            raise invalid("a text to search for, or a prefix: not both", "prefix")
        await spend(request, service, access, queries=0)
        asked = EntityList(search, prefix, offset, limit, known_fields(fields))
        return await respond(await service.entities(asked), large=limit > MANY_RESULTS)

    @app.post(
        "/v1/entities/lookup",
        response_model=None,
        responses=answers(LookedUp, "the entity of each name, in order", 400, 422, 429),
        openapi_extra=body(LookupRequest),
    )
    @needs("read")
    async def lookup(request: Request) -> Response:
        """Look up many names or aliases. What is like an unknown one is sought of the first 100 (`sought`).

        Each of these counts as a query.
        """
        asked = checked(LookupRequest, await decoded(request))
        names = asked.names
        unknown = sum(not service.knows(name) for name in names)
        await spend(request, service, access, min(unknown, LOOKUP_SUGGESTIONS))
        return await respond(await service.look_up(names, asked.fields), large=len(names) > MANY_RESULTS)

    @app.get(
        "/v1/entities/{given:path}",
        response_model=None,
        responses=answers(EntityDetails, "the entity", 404, 422, 429, 503, 504),
    )
    @needs("read")
    async def entity(
        request: Request,
        given: Annotated[Name, Path(description="name or alias")],
        sentences: Sentences = 5,
        neighbours: Neighbours = 10,
        vectors: Views = "",
    ) -> Response:
        """Describe one entity, by name or alias. It counts as a query with neighbours, or if unknown."""
        queries = 1 if neighbours or not service.knows(given) else 0
        trace = await spend(request, service, access, queries)
        return await respond(await service.entity(given, EntityParts(sentences, neighbours, vectors), trace))

    @app.get(
        "/v1/bundles/{bundle}/entities/{entity}",
        response_model=None,
        responses=answers(EntityDetails, "the entity", 404, 409, 422, 429, 503, 504),
    )
    @needs("read")
    async def entity_by_id(
        request: Request,
        bundle: Annotated[Id, Path(description="the bundle that the id is of; current: any")],
        entity: Annotated[int, Path(ge=0, lt=1 << 31)],
        sentences: Sentences = 5,
        neighbours: Neighbours = 10,
        vectors: Views = "",
    ) -> Response:
        """Describe the entity of an id. With neighbours, it counts as a query."""
        trace = await spend(request, service, access, queries=min(neighbours, 1))
        wanted = EntityParts(sentences, neighbours, vectors)
        return await respond(await service.entity_by_id(bundle, entity, wanted, trace))

    image_of = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("image/*",)}

    @app.get(
        "/v1/images/{entity}/{n}",
        response_model=None,
        responses=content("the image's bytes", image_of, 404, 409, 422),
    )
    @needs("read")
    async def image(
        request: Request,
        entity: Annotated[int, Path(ge=0, lt=1 << 31)],
        n: Annotated[int, Path(ge=0, lt=MAX_IMAGES)],
        sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
        bundle: Annotated[Id | None, Query()] = None,
    ) -> Response:
        """Return an image that the bundle names for an entity, if its content or the bundle is as given."""
        found = await service.image(entity, n, sha256, bundle)
        etag = f'"{found.sha256}"'
        # With the digest in the address nothing else can ever come from there; without, it is asked again.
        headers = {"ETag": etag, "Cache-Control": FOREVER if sha256 else "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)
