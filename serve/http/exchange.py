"""Read the bodies of requests, write answers, and take queries off a caller's rate."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import Request, Response

from serve.http.auth import Access
from serve.http.errors import ProblemError, invalid
from serve.http.middleware import JSON
from serve.http.requests import decode, encode
from serve.http.service import Service
from serve.http.trace import Trace

LARGE_BODY = 64 << 10
"""Bytes above which a body is decoded or compressed off the event loop."""


async def respond(given: Mapping[str, Any], status: int = 200, large: bool = False) -> Response:
    """Return a JSON response; a ``large`` one is encoded off the event loop."""
    encoded = await asyncio.to_thread(encode, given) if large else encode(given)
    return Response(encoded, status, media_type=JSON)


async def decoded(request: Request) -> Any:
    """Return what the body holds, which must say that it is JSON: so no other site's form can be it.

    Raises:
        ProblemError: it does not, or is not.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise invalid(f"the body must come with `content-type: {JSON}`")
    given = await request.body()
    found = decode(given) if len(given) < LARGE_BODY else await asyncio.to_thread(decode, given)
    note_asked(request, found, len(given))
    return found


def note_asked(request: Request, asked: Any, size: int) -> None:
    """Note what a request's body holds, for the audit log; it must not be changed any more."""
    trace: Trace = request.state.trace
    trace.asked, trace.asked_bytes = asked, size


async def spend(request: Request, service: Service, access: Access, queries: int = 1) -> Trace:
    """Take queries off the caller's rate, and return what is written down of the request.

    Raises:
        ProblemError: the rate does not hold them yet (429).
    """
    trace: Trace = request.state.trace
    try:
        await access.spend(trace.caller, queries)
    except ProblemError as error:
        service.metrics.shed(error.problem.code)
        raise
    return trace
