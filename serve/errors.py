"""Define the errors of a service under too much load, or with too few replicas.

Any room may raise them; :mod:`serve.http.errors` says how an HTTP client sees them.
"""

from __future__ import annotations

from engine.errors import BundleError, FilterError, FormatError, StorageError, UserError


class RetryLaterError(UserError):
    """The same request may succeed later.

    Args:
        message: one line for the caller.
        retry_after_s: seconds after which it may be worth trying again.
    """

    status = 503

    def __init__(self, message: str, retry_after_s: float = 1) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class UnavailableError(RetryLaterError):
    """A stage does not answer now."""


class OverloadedError(RetryLaterError):
    """An error of load shedding: too much waits already."""


def unwrapped(error: Exception) -> Exception:
    """Return the error that Ray carried over from another process.

    Its wrapper is an instance of the same class, but its text is the traceback there.
    """
    cause = getattr(error, "cause", None)
    return unwrapped(cause) if isinstance(cause, Exception) else error


def state_of(error: UserError) -> str:
    """Return what is told of a part of the service that cannot answer; callers see no path and no address.

    A mistake that says nothing of its own to callers is of the service's settings or models here.
    """
    if error.public or isinstance(error, BundleError):
        return error.public_message
    return "cannot be opened; the service's log says why"


def code_of(error: UserError) -> str:
    """Return an error's code in answers: ``UnknownEntityError`` is ``unknown_entity``.

    Whatever is wrong with files of the service has one code.
    """
    if isinstance(error, StorageError | FormatError):
        return "storage"
    if isinstance(error, FilterError):
        return "query"
    name = type(error).__name__.removesuffix("Error")
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_") or "user"
