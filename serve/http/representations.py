"""Change how an answer is represented: entity tags, and problem details where they are asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.heads import header_values
from serve.http.requests import encode

PROBLEM_JSON = "application/problem+json"
"""The media type of RFC 9457."""

TAGGED = ("application/json", "text/html")
"""Media types of answers that get an entity tag."""

REVALIDATED = "private, no-cache"
"""A cache asks each time whether what it has is still so: a bundle is published at any time."""


class EntityTagMiddleware:
    """The innermost layer: tags what GET answers below /v1 by its content; 304 where the caller has it.

    By content, not by the bundle: what an answer says may also lie in files, and in settings. The tags are
    weak, since an answer may be sent compressed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        if scope["type"] != "http" or scope["method"] != "GET" or not path.startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        whole = _Whole(send, _is_tagged)
        await self._app(scope, receive, whole)
        if whole.start is None:
            return
        tag = f'W/"{hashlib.blake2b(whole.body, digest_size=16).hexdigest()}"'
        headers = MutableHeaders(raw=whole.start["headers"])
        headers["etag"] = tag
        headers.setdefault("cache-control", REVALIDATED)
        if _knows(header_values(scope, b"if-none-match"), tag):
            for name in ("content-length", "content-type"):
                del headers[name]
            whole.start["status"], whole.body = 304, b""
        await whole.send_all()


class ProblemDetailsMiddleware:
    """A layer that writes errors as RFC 9457 has them, where a request's ``Accept`` names its media type."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http" or not _wants_details(scope):
            await self._app(scope, receive, send)
            return
        whole = _Whole(send, _is_error)
        await self._app(scope, receive, whole)
        if whole.start is None:
            return
        details = details_of(json.loads(whole.body), whole.start["status"])
        if details is not None:
            whole.body = encode(details)
            headers = MutableHeaders(raw=whole.start["headers"])
            headers["content-type"], headers["content-length"] = PROBLEM_JSON, str(len(whole.body))
        await whole.send_all()


def details_of(body: Any, status: int) -> dict[str, Any] | None:
    """Return an error's body as problem details, with RFC 9457's names; None: it is no error's."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    own = {name: value for name, value in error.items() if name != "message"}
    return {"type": "about:blank", "title": title, "status": status, "detail": error["message"], **own}


class _Whole:
    """A ``send`` that keeps an answer back, if its start says so, until all of it is there.

    Attributes:
        start: the answer's start, if it is kept back.
        body: what came of it.
    """

    def __init__(self, send: Send, keeps: Callable[[Message], bool]) -> None:
        self._send, self._keeps = send, keeps
        self.start: Message | None = None
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and self._keeps(message):
            self.start = {**message, "headers": list(message["headers"])}
        elif self.start is not None and message["type"] == "http.response.body":
            self.body += message.get("body", b"")
        else:
            await self._send(message)

    async def send_all(self) -> None:
        """Send what was kept back."""
        assert self.start is not None
        await self._send(self.start)
        await self._send({"type": "http.response.body", "body": self.body})


def _is_tagged(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    kind = headers.get("content-type", "").partition(";")[0]
    return start["status"] == 200 and kind in TAGGED and "etag" not in headers


def _is_error(start: Message) -> bool:
    headers = Headers(raw=start["headers"])
    is_json = headers.get("content-type", "").startswith("application/json")
    return start["status"] >= 400 and is_json and "content-encoding" not in headers


def _knows(conditions: list[bytes], tag: str) -> bool:
    """Return whether a request has what has the tag; weakly compared (RFC 9110, 13.1.2)."""
    given = [one.strip() for line in conditions for one in line.decode("latin-1").split(",")]
    return "*" in given or tag in given or tag.removeprefix("W/") in given


def _wants_details(scope: Scope) -> bool:
    kinds = (kind for line in header_values(scope, b"accept") for kind in line.decode("latin-1").split(","))
    return any(kind.partition(";")[0].strip().lower() == PROBLEM_JSON for kind in kinds)
