"""Route requests for the audit log, and make its entries of requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from pydantic import Field
from starlette.types import Scope

from serve.audit.entries import OF_RIGHT, Event, GivenTime, Wanted
from serve.audit.recorder import Audit
from serve.http.auth import Access
from serve.http.errors import Problem, ProblemError
from serve.http.exchange import respond, spend
from serve.http.openapi import answers
from serve.http.requests import Id
from serve.http.responses import Shape
from serve.http.rights import needs
from serve.http.service import Service
from serve.http.trace import Trace

MAX_ENTRIES = 1000
"""Entries of one answer."""

OFF = "this service keeps no audit log; start it with --audit FILE, on a local disk of the cluster's head"

Name = Annotated[str, Query(max_length=512, description="of the token")]
Time = Annotated[GivenTime | None, Query(description="ISO 8601; without a zone it is UTC")]


class AuditEntry(Shape):
    """What was asked, curated or published (`event` says by the right that the route needs), or a bundle that
    came to be served (`served`), or how many entries could not be written (`lost`).
    """

    time: str
    event: Event
    who: str = ""
    request_id: str = ""
    route: str = ""
    status: int = 0
    ms: float = 0
    method: str = Field(default="", description="of the expansion")
    bundle: str = ""
    before: str = Field(default="", description="the bundle that was served before")
    queries: int = 0
    path: dict[str, Any] = Field(default={}, description="parameters of the path")
    params: dict[str, Any] = Field(default={}, description="parameters after ?, those that the route has")
    body: Any = Field(default=None, description="as it was sent; text where it is cut")
    cut: bool = False
    count: int = 0
    since: str = ""


class AuditEntries(Shape):
    """Entries, newest first; `broken`: lines of the file that are none."""

    entries: list[AuditEntry]
    more: bool
    broken: int


def add_audit(app: FastAPI, service: Service, access: Access, audit: Audit | None) -> None:
    """Add the route for the audit log to the application; without a log it says so."""

    @app.get(
        "/v1/audit",
        response_model=None,
        responses=answers(AuditEntries, "entries, newest first", 404, 422, 429, 503),
    )
    @needs("publish")
    async def read_audit(
        request: Request,
        who: Name = "",
        event: Annotated[Event | None, Query()] = None,
        request_id: Annotated[Id | None, Query()] = None,
        since: Time = None,
        until: Time = None,
        offset: Annotated[int, Query(ge=0, lt=1 << 31, description="newest entries passed over")] = 0,
        limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 100,
    ) -> Response:
        """Say who asked, curated and published what, newest first. What came in the last second may lack."""
        await spend(request, service, access, queries=0)
        if audit is None:
            raise ProblemError(Problem("not_available", OFF, 404))
        wanted = Wanted(who, event or "", request_id or "", since, until, offset, limit)
        return await respond(await audit.read(wanted), large=True)


def entry_of(scope: Scope, trace: Trace, status: int, seconds: float) -> dict[str, Any] | None:
    """Return the entry of a request that was answered; None for one that needs no token, or brought none.

    Who has no token leaves no entry: with requests without end he could push all others out of the log. No
    header is written down, and after ``?`` what the route knows alone.
    """
    route = trace.route
    if not trace.needed or status == 401 or route is None or not route.include_in_schema:
        return None
    known = {field.alias for field in route.dependant.query_params}
    given = Request(scope).query_params
    entry = {
        "event": OF_RIGHT[trace.needed],
        "who": trace.caller,
        "request_id": trace.request_id,
        "route": f"{scope['method']} {route.path_format}",
        "status": status,
        "ms": round(1000 * seconds, 3),
        "method": trace.method,
        "bundle": trace.bundle,
        "queries": trace.queries,
        "path": (scope if "path_params" in scope else route.matches(scope)[1]).get("path_params"),
        "params": {key: value for key, value in given.items() if key in known},
        "body": trace.asked,
    }
    return {key: value for key, value in entry.items() if value not in ("", 0, None, {})}
