"""Say what comes of one request to a chat model's endpoint: a response, or one of these errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Response:
    """A response of whatever status.

    Attributes:
        status: of HTTP.
        headers: by their names in lower case.
        body: as it was sent, decompressed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes


class ExchangeError(Exception):
    """No whole response.

    Args:
        detail: what the network says of it; "" where it says nothing.
        sent: whether a part of the request may have reached the endpoint.
        answered: whether a response has begun.
    """

    def __init__(self, detail: str = "", *, sent: bool = False, answered: bool = False) -> None:
        super().__init__(detail)
        self.detail, self.sent, self.answered = detail, sent, answered


class LateError(ExchangeError):
    """The response was not there, or not whole, in time."""


class TooLargeError(ExchangeError):
    """The body has more bytes than are read."""


class BrokenError(ExchangeError):
    """There is no connection, or it fails."""


class UndecodableError(ExchangeError):
    """The body cannot be decompressed."""
