"""Lay seeds and other entities on a plane: ``POST /v1/map``."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import numpy as np
from fastapi import FastAPI, Request, Response

from engine.query import Expansion, Query, Ranking
from engine.storage.workspace import Workspace
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import MAP
from serve.http.auth import Access
from serve.http.errors import Problem, ProblemError, check_bundle
from serve.http.exchange import decoded, respond, spend
from serve.http.explanations import explanations
from serve.http.images import ImageAddresses
from serve.http.openapi import answers, body
from serve.http.requests import MapRequest, checked, numbers
from serve.http.resolve import Arrival, GivenEntities
from serve.http.responses import EntityMap
from serve.http.rights import needs
from serve.http.service import Service
from serve.http.trace import Trace

Json = dict[str, Any]

PLANE = (("Explain.plane", True),)
"""What is asked of the stage that explains: where the entities lie, too."""

COORDINATES = ("x", "y", "off")


def add_map(app: FastAPI, service: Service, access: Access) -> None:
    """Add the route of maps to the application."""

    @app.post(
        "/v1/map",
        response_model=None,
        responses=answers(EntityMap, "the entities on a plane", 400, 404, 409, 422, 429, 503, 504),
        openapi_extra=body(MapRequest),
    )
    @needs("read")
    async def map_entities(request: Request) -> Response:
        """Lay seeds and other entities on a plane by their vectors (PCA): what is alike lies near.

        The same entities lie in the same places, in whatever order they are given.
        """
        asked = checked(MapRequest, await decoded(request))
        trace = await spend(request, service, access)
        return await respond(await _laid_out(service, asked, trace), large=True)


async def _laid_out(service: Service, request: MapRequest, trace: Trace) -> Json:
    """Answer a request for a map.

    Raises:
        ProblemError: an unknown entity, a bundle without vectors, or why it cannot be answered now.
    """
    snapshot = service.snapshot
    check_bundle(request.bundle, snapshot.id)
    if MAP not in snapshot.routes:
        raise ProblemError(Problem("not_available", "the bundle has no vectors to lay entities out by", 404))
    arrival = Arrival()
    deadline = arrival.deadline(min((request.deadline_ms or float("inf")) / 1000, service.settings.timeout_s))

    def resolved() -> Expansion:
        given = GivenEntities(snapshot, partial(arrival.may_suggest, deadline))
        positive, negative, new = given.seeds(request)
        others = given.ids(request.entities, "entities")
        ids = np.array([i for i in dict.fromkeys((*positive, *negative, *others)) if i >= 0], np.int32)
        named = trace.request_id or "map"
        query = Query(named, positive, negative, max(len(ids), 1), (), new, deadline, options=PLANE)
        return Expansion(query, Ranking(ids, np.zeros(len(ids), np.float32)))

    asked = await asyncio.to_thread(resolved)
    trace.bundle, trace.queries = snapshot.id, 1
    (outcome,) = await service.dispatched(MAP, snapshot.id, [asked], trace)
    if isinstance(outcome, Problem):
        raise ProblemError(outcome)
    if "x" not in outcome.ranking.evidence:
        raise ProblemError(Problem("timeout", "no map came in time", 504))
    images = ImageAddresses(Workspace.open(service.settings.workspace), snapshot.id)
    return await asyncio.to_thread(_answer, snapshot, outcome, request.explain, images)


def _answer(snapshot: BundleSnapshot, found: Expansion, explain: bool, images: ImageAddresses) -> Json:
    ranking, query = found.ranking, found.query
    about = explanations(found, snapshot, images)[1] if explain else {}
    columns = [numbers(ranking.evidence[name].tolist()) for name in COORDINATES]
    sides = dict.fromkeys(query.positive, "positive") | dict.fromkeys(query.negative, "negative")
    points = [
        {
            **{"id": entity, "name": snapshot.vocabulary.names[entity], "side": sides.get(entity, "")},
            **dict(zip(COORDINATES, place, strict=True)),
            **({"explanation": about[entity]} if explain else {}),
        }
        for entity, *place in zip(ranking.ids.tolist(), *columns, strict=True)
    ]
    seconds = round(sum(found.seconds.values()), 6)
    return {"bundle": snapshot.id, "points": points, "shown": _shown(ranking), "seconds": seconds}


def _shown(ranking: Ranking) -> float | None:
    """Return the share of the variance that the plane shows; None: there is none."""
    x, y, off = (float(np.nansum(ranking.evidence[name].astype(np.float64) ** 2)) for name in COORDINATES)
    return round((x + y) / (x + y + off), 6) if x + y + off > 0 else None
