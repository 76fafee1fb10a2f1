"""Errors as an HTTP client sees them: a status and one JSON object, never a traceback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.errors import UnknownEntityError, UserError


class UnknownMethodError(UserError):
    """A method that is not served."""

    status = 404

    def __init__(self, given: str, known: list[str]) -> None:
        self.known = known
        super().__init__(f"unknown method {given!r}; served here: {', '.join(known)}")


class UnavailableError(UserError):
    """A stage that does not answer now; the same request may succeed later."""

    status = 503


class FailedError(UserError):
    """What a stage said of one query (:func:`serve.runner.failure`)."""

    def __init__(self, type: str, message: str, status: int) -> None:
        self.kind, self.status = type, status
        super().__init__(message)


def kind_of(error: UserError) -> str:
    """Return an error's name in answers: ``UnknownEntityError`` is ``unknown_entity``."""
    if isinstance(error, FailedError):
        return error.kind
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_") or "user"


def body_of(error: Exception) -> dict[str, Any]:
    """Return ``{"error": {"type", "message", …}}``; more than a user's own error is not told."""
    if not isinstance(error, UserError):
        return error_body("internal", "internal error; see the log")
    details: dict[str, Any] = {}
    if isinstance(error, UnknownEntityError):
        details = {"given": error.given, "closest": error.closest}
    if isinstance(error, UnknownMethodError):
        details = {"known": error.known}
    return error_body(kind_of(error), str(error), **details)


def error_body(kind: str, message: str, **details: Any) -> dict[str, Any]:
    """Return the JSON object of an error."""
    return {"error": {"type": kind, "message": message, **details}}


def in_words(problems: Sequence[Any]) -> str:
    """Return pydantic's findings as one line: where, and what is wrong; the first three."""
    lines = [f"{'.'.join(map(str, p['loc'])) or 'query'}: {p['msg']}" for p in problems[:3]]
    return "; ".join(lines)
