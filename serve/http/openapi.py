"""Make the OpenAPI document, once, when the service starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serve.http.requests import ExpandRequest
from serve.http.responses import Answer, ErrorAnswer, RoundEvent, StageEvent
from serve.http.rights import OPEN, right_of
from serve.settings import ServeSettings

Json = dict[str, Any]

JSON_TYPE = "application/json"

REF = "#/components/schemas/{model}"

FOREIGN_CLIENTS = "x-foreign-clients"
"""Marks the operations of another's protocol, whose clients add parameters of their own."""

OPERATION = "operation"
TAGS = {
    "expand": "expansion",
    "map": "expansion",
    "type": "typing",
    "bundles": "entities",
    "images": "entities",
    "attributes": "bundle",
    "methods": "bundle",
    "reconcile": "reconciliation",
}
"""Groups of operations, by the first part of their paths, where it is not the group's name."""

ABOUT = """
Ultra-fine-grained entity set expansion: positive and negative seed entities in, ranked entities out.
Every answer carries `X-Request-ID`: the caller's, if it is 1..64 of `[A-Za-z0-9._-]`, or a new one.
GET below `/v1` is tagged (`ETag`), and 304 where `If-None-Match` names the tag. HEAD is answered as GET.
`Accept: application/problem+json` brings errors as RFC 9457 has them.
"""

ERRORS: Mapping[int, str] = {
    400: "malformed_json: the body is not JSON",
    401: "unauthorized: tokens are configured, and the request brings none of them",
    403: "host_not_allowed: the request names a host that is not among allowed_hosts; forbidden: the token "
    "lacks the right that the operation needs",
    404: "not_found, unknown_entity, unknown_method or unknown_set: there is no such thing",
    408: "slow_request: the body did not arrive in time",
    409: "other_bundle: ids of a bundle that is not served; ask by name, or again for what they are of; "
    "set_conflict, set_exists: somebody changed the set meanwhile, or has one of the name",
    413: "too_large: the body is above the limit",
    422: "invalid_request, unknown_entity, unknown_attribute or query: `field` says where",
    429: "rate_limited: too many queries in a minute",
    431: "head_too_large: the address and the headers are above the limit",
    500: "internal: an error of ours; the log has it under `id`",
    503: "overloaded, unavailable or bundle: the same request may succeed later",
    504: "timeout: no answer within the deadline",
}

EVERYWHERE = (401, 403, 408, 413, 422, 431, 500)

RETRY_AFTER: Json = {
    "Retry-After": {"description": "seconds after which to come again", "schema": {"type": "integer"}}
}


def errors(*statuses: int) -> dict[int | str, Json]:
    """Return FastAPI's ``responses`` for errors; every route may answer those of :data:`EVERYWHERE`."""
    found: dict[int | str, Json] = {}
    for status in sorted({*EVERYWHERE, *statuses}):
        found[status] = {"model": ErrorAnswer, "description": ERRORS[status]}
        if status in (429, 503):
            found[status]["headers"] = RETRY_AFTER
        if status == 401:
            found[status]["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return found


def answers(model: type, about: str, *statuses: int) -> dict[int | str, Json]:
    """Return FastAPI's ``responses``: a model with 200, and errors."""
    return {200: {"model": model, "description": about}, **errors(*statuses)}


def content(about: str, types: Mapping[str, Json], *statuses: int) -> dict[int | str, Json]:
    """Return FastAPI's ``responses`` where 200 is no JSON."""
    return {200: {"description": about, "content": dict(types)}, **errors(*statuses)}


def event_schema() -> Json:
    """Return the schema of one server-sent event: its name, and JSON as its data."""
    shapes = {"stage": StageEvent, "round": RoundEvent, "answer": Answer, "error": ErrorAnswer}
    kinds = []
    for name, model in shapes.items():
        data = {"contentMediaType": "application/json", "contentSchema": {"$ref": ref_to(model)}}
        own = {"event": {"const": name}, "data": {"type": "string", **data}}
        kinds.append({"type": "object", "properties": own, "required": ["event", "data"]})
    return {"oneOf": kinds}


def ref_to(model: type) -> str:
    """Return where the document has the schema of a model."""
    return REF.format(model=model.__name__)


BODIES: dict[str, type[BaseModel]] = {}
"""What routes take as their body, by the name of its schema: :func:`body` notes it."""


def body(model: type[BaseModel]) -> Json:
    """Return ``openapi_extra`` of a route that reads its body itself; the document has the model's schema."""
    BODIES[model.__name__] = model
    content = {"application/json": {"schema": {"$ref": ref_to(model)}}}
    return {"requestBody": {"required": True, "content": content}}


def tag_of(path: str) -> str:
    """Return the group of a path's operations, which generated clients make a class of."""
    first = path.removeprefix("/v1/").split("/")[0]
    return TAGS.get(first, first) if path.startswith("/v1/") else OPERATION


def document(app: FastAPI, settings: ServeSettings) -> Json:
    """Return the OpenAPI document of the application's routes."""
    made = get_openapi(title="seedset", version="1", description=ABOUT, routes=app.routes)
    given = (Answer, StageEvent, RoundEvent)
    models = [(model, "validation") for model in BODIES.values()] + [
        (model, "serialization") for model in given
    ]
    _, shapes = models_json_schema(models, ref_template=REF)  # type: ignore[arg-type]
    schemas = made["components"]["schemas"]
    schemas |= shapes["$defs"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own shape of errors is not ours
        schemas.pop(name, None)
    top_k = schemas["ExpandRequest"]["properties"]["top_k"]
    top_k |= {"maximum": settings.max_top_k, "default": min(top_k["default"], settings.max_top_k)}
    schemas["ExpandRequest"]["properties"]["offset"]["exclusiveMaximum"] = settings.max_top_k
    schemas["BatchRequest"]["properties"]["queries"] = {
        "type": "array",
        "minItems": 1,
        "maxItems": settings.max_queries,
        "items": {"$ref": ref_to(ExpandRequest)},
        "description": "checked one by one: what is wrong with one is said in its place",
    }
    for path, operations in made["paths"].items():
        for method, operation in operations.items():
            operation["tags"] = [tag_of(path)]
            given = operation["responses"].get("200", {}).get("content", {})
            if len(given) > 1 and given.get(JSON_TYPE) == {"schema": {}}:
                del given[JSON_TYPE]  # FastAPI says so of every route, also of those that never answer JSON
            if method == "get" and path.startswith("/v1/"):
                operation["responses"]["304"] = {"description": "what If-None-Match names is still so"}
    if settings.tokens:
        made["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        _add_rights(made, app)
    return made


def _add_rights(made: Json, app: FastAPI) -> None:
    """Say of each operation which right its token needs: a role, as OpenAPI 3.1 calls it."""
    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            operation = made["paths"].get(getattr(route, "path_format", ""), {}).get(method.lower())
            if operation is not None:
                right = right_of(route)
                operation["security"] = [] if right == OPEN else [{"token": [right]}]
