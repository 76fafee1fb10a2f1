"""Route requests for blind reviews of named sets: second opinions that nobody sees before they are done."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request, Response

from serve.http.auth import Access
from serve.http.errors import SHOWN, invalid
from serve.http.exchange import decoded, respond, spend
from serve.http.openapi import answers, body
from serve.http.requests import checked
from serve.http.review_requests import (
    BeginReviewRequest,
    MarkReviewRequest,
    Review,
    ReviewMarked,
    Reviews,
)
from serve.http.rights import needs
from serve.http.service import Service
from serve.http.set_requests import MAX_CURATOR, SetId
from serve.http.set_service import SetService

MAX_SPLIT = 1000
"""Entities of one answer on which reviews do not agree."""

REVIEW_ERRORS = (400, 404, 422, 429, 503)


def add_reviews(app: FastAPI, service: Service, access: Access, answering: SetService) -> None:
    """Add the routes for reviews to the application."""
    _add_reading(app, service, access, answering)

    @app.post(
        "/v1/sets/{set_id}/reviews",
        response_model=None,
        responses=answers(Review, "the review", *REVIEW_ERRORS),
        openapi_extra=body(BeginReviewRequest),
    )
    @needs("curate")
    async def begin_review(request: Request, set_id: SetId) -> Response:
        """Begin a blind review of a set, or go on with one's own.

        Nobody sees how another marks before two or more reviews are there and all are done. The set stays
        as it is.
        """
        asked = checked(BeginReviewRequest, await decoded(request))
        trace = await spend(request, service, access, queries=0)
        found = await answering.store("begin_review", set_id, trace.caller or asked.by)
        return await respond(found, large=True)

    @app.post(
        "/v1/sets/{set_id}/reviews/marks",
        response_model=None,
        responses=answers(ReviewMarked, "how far the review is", *REVIEW_ERRORS),
        openapi_extra=body(MarkReviewRequest),
    )
    @needs("curate")
    async def mark_review(request: Request, set_id: SetId) -> Response:
        """Mark entities in one's own review, or end it: after that nothing of it changes."""
        asked = checked(MarkReviewRequest, await decoded(request))
        if twice := next((name for name in asked.reject if name in set(asked.accept)), None):
            raise invalid(f"{twice[:SHOWN]!r} is accepted and rejected at once", "reject")
        trace = await spend(request, service, access, queries=0)
        by, marks = trace.caller or asked.by, (asked.accept, asked.reject, asked.clear)
        given = (by, asked.round, *marks, asked.done)
        return await respond(await answering.store("mark_review", set_id, *given))

    @app.delete(
        "/v1/sets/{set_id}/reviews",
        response_model=None,
        responses=answers(Reviews, "the reviews that are left", 404, 422, 429, 503),
    )
    @needs("curate")
    async def withdraw_review(
        request: Request,
        set_id: SetId,
        curator: Annotated[str, Query(min_length=1, max_length=MAX_CURATOR, description="whose")],
    ) -> Response:
        """Delete a review of a round that is open, such as one that nobody will end."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.store("withdraw_review", set_id, curator))


def _add_reading(app: FastAPI, service: Service, access: Access, answering: SetService) -> None:
    @app.get(
        "/v1/sets/{set_id}/reviews",
        response_model=None,
        responses=answers(Reviews, "the reviews", 404, 422, 429, 503),
    )
    @needs("read")
    async def set_reviews(
        request: Request, set_id: SetId, limit: Annotated[int, Query(ge=1, le=MAX_SPLIT)] = 100
    ) -> Response:
        """Say who reviews a set and how far they are, and once all are done how far they agree."""
        await spend(request, service, access, queries=0)
        return await respond(await answering.store("reviews", set_id, limit), large=True)
