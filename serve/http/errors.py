"""Describe errors to an HTTP client: a status and one JSON object, never a traceback."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import FilterError, UnknownAttributeError, UnknownEntityError, UserError
from serve.errors import RetryLaterError, code_of
from serve.messages import Failure
from serve.sets.errors import SetConflictError

SHOWN = 80
"""Characters shown of a key that a request was given: it may be as long as the body."""


@dataclass(frozen=True)
class Problem:
    """A description of an error for the caller.

    Args:
        code: the error's name: what a program decides by.
        message: one line for a person.
        status: of HTTP.
        field: dotted path into the request, such as ``positive.0``.
        suggestions: spellings that would work in the field's place.
        retry_after_s: when it may be worth trying again.
        id: of the request, under which the log has more.
    """

    code: str
    message: str
    status: int
    field: str | None = None
    suggestions: tuple[str, ...] = ()
    retry_after_s: float | None = None
    id: str | None = None

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the error."""
        error = {"code": self.code, "message": self.message, "field": self.field}
        own = {"suggestions": list(self.suggestions)} | ({"id": self.id} if self.id else {})
        return {"error": error | own}

    @property
    def headers(self) -> Mapping[str, str]:
        """The further headers of the answer."""
        found = {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        if self.retry_after_s is not None:
            found["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        return found


class ProblemError(UserError):
    """An error that carries a :class:`Problem` to where it is answered."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.status = problem, problem.status
        super().__init__(problem.message)


class UnknownMethodError(ProblemError):
    """A method that is not served; ``why`` where there is one of that name."""

    def __init__(self, given: str, known: Sequence[str], why: str = "") -> None:
        what = f"method {given!r} is not available here ({why})" if why else f"unknown method {given!r}"
        message = f"{what}; served here: {', '.join(known)}"
        super().__init__(Problem("unknown_method", message, 404, "method", tuple(known)))


class FailedError(ProblemError):
    """The failure that a stage reported of one query."""

    def __init__(self, failure: Failure) -> None:
        code, retry_after_s = failure.code, failure.retry_after_s
        super().__init__(Problem(code, failure.message, failure.status, retry_after_s=retry_after_s))


class OtherBundleError(ProblemError):
    """An id of a bundle that is not served: it may mean another entity in the one that is."""

    def __init__(self, given: str, served: str) -> None:
        message = (
            f"bundle: {given!r} is not served, but {served!r}, in which ids mean other entities; "
            "ask again for what the ids are of, or ask by name"
        )
        super().__init__(Problem("other_bundle", message, 409, "bundle"))


def check_bundle(given: str | None, served: str) -> None:
    """Refuse ids of a bundle other than the one that is served (OtherBundleError); None: of any."""
    if given not in (None, served):
        raise OtherBundleError(str(given)[:SHOWN], served)


def invalid(message: str, field: str | None = None, suggestions: Sequence[str] = ()) -> ProblemError:
    """Return the error of a request that says what cannot be."""
    return ProblemError(Problem("invalid_request", message, 422, field, tuple(suggestions)))


def problem_of(error: UserError, field: str | None = None) -> Problem:
    """Return a user's error as it is answered; ``field`` says where it was found, if it does not know.

    What is not for callers is left out: see :attr:`engine.errors.UserError.public_message`.
    """
    if isinstance(error, ProblemError):
        return error.problem
    suggestions: Sequence[str] = ()
    retry_after_s = error.retry_after_s if isinstance(error, RetryLaterError) else None
    if isinstance(error, UnknownEntityError):
        suggestions = error.closest
    if isinstance(error, UnknownAttributeError):
        field, suggestions = error.field, error.suggestions
    if isinstance(error, FilterError):
        field = error.field
    if isinstance(error, SetConflictError):
        field, suggestions = "version", (str(error.current),)
    message = error.public_message
    return Problem(code_of(error), message, error.status, field, tuple(suggestions), retry_after_s)


def internal(id: str) -> Problem:
    """Return the answer to an internal error: the id under which the log has it, and no more."""
    return Problem("internal", f"internal error; the log has it under {id}", 500, id=id)


def in_words(problems: Sequence[Any]) -> str:
    """Return pydantic's findings as one line: where, and what is wrong; the first three."""
    return "; ".join(
        f"{field_of(p['loc']) or 'request'}: {p['msg'].removeprefix('Value error, ')}" for p in problems[:3]
    )


def field_of(location: Sequence[str | int]) -> str:
    """Return where pydantic found something as a dotted path into the request.

    Left out is what names no place in it: the kinds of a seed ("<name>"), "[key]", and FastAPI's "query".
    """
    parts = [str(part) for part in location]
    if len(parts) > 1 and parts[0] in ("query", "path"):
        parts = parts[1:]
    kept = (part for part in parts if not part.startswith(("<", "[")))
    return ".".join(part if len(part) <= SHOWN else f"{part[:SHOWN]}…" for part in kept)


def invalid_fields(problems: Sequence[Any], suggestions: Sequence[str] = ()) -> Problem:
    """Return pydantic's findings as one problem, at the first of them."""
    hint = f"; did you mean {' or '.join(suggestions)}?" if suggestions else ""
    field = field_of(problems[0]["loc"]) or None
    return Problem("invalid_request", in_words(problems) + hint, 422, field, tuple(suggestions))
