"""Send requests and read answers, the same for both clients: tokens, errors, attempts, events."""

from __future__ import annotations

import ipaddress
import json
import os
import random
import time
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, TypeVar

import httpx

from serve.client.calls import Call

TOKEN = "SEEDSET_TOKEN"

AGAIN = (429, 502, 503)
"""Statuses after which a request is sent again; and a 500 that is not in the service's words, but of a
replica that was lost."""
FOREIGN = "http"
"""The code of errors that are not in the service's words."""

UNSENT = "invalid_request"
"""The code of a request that cannot be sent."""

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 10.0


class Result(TypedDict):
    """A ranked entity; ``explanation`` if it was asked for."""

    rank: int
    id: int
    name: str
    score: float | None
    evidence: dict[str, float | None]
    explanation: NotRequired[dict[str, Any]]


class Facet(TypedDict):
    """A value of an attribute: of how many entities of an answer, and of all that could be in it."""

    value: str
    count: int
    entities: int


class Answer(TypedDict):
    """An answered query.

    ``degraded`` says what was left out, ``reasoning`` what a chain of thought said, ``counts`` what stages
    counted; ``facets`` by attribute, if they were asked for.
    """

    id: str
    method: str
    bundle: str
    options: dict[str, bool | int | float | None]
    results: list[Result]
    seconds: dict[str, float]
    degraded: list[str]
    reasoning: dict[str, str]
    counts: dict[str, int]
    facets: NotRequired[dict[str, list[Facet]]]


class ServiceError(Exception):
    """An error that the service answered.

    Args:
        status: of HTTP; 0 if there was no answer at all.
        code: the error's name, such as "unknown_entity"; "unreachable" if there was no answer.
        message: for a person.
        field: dotted path into the request, or None.
        suggestions: spellings that would work in the field's place.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        field: str | None = None,
        suggestions: Sequence[str] = (),
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.field, self.suggestions = field, list(suggestions)


class Attempts:
    """The times that one request is sent: again where that may help, within the attempts and the time.

    Args:
        timeout_s: for all of them.
        most: times at most.
    """

    def __init__(self, timeout_s: float, most: int) -> None:
        self._end, self._most, self._sent = time.monotonic() + timeout_s, most, 0
        self._failure = ServiceError(0, "unreachable", "not sent")
        self._wait_s = 0.0

    def begin(self, request: httpx.Request) -> None:
        """Give a request the time that is left."""
        self._sent += 1
        self._wait_s = min(FIRST_PAUSE_S * 2 ** (self._sent - 1) * random.uniform(0.5, 1), LONGEST_PAUSE_S)
        left_s = max(self._end - time.monotonic(), 0.001)
        request.extensions["timeout"] = httpx.Timeout(left_s).as_dict()

    def lost(self, error: httpx.RequestError) -> None:
        """Note that there was no answer.

        Raises:
            ServiceError: the same again would fail again.
        """
        reason = str(error) or type(error).__name__
        if isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol | httpx.DecodingError):
            raise ServiceError(0, UNSENT, reason) from None
        self._failure = unreachable(error)

    def refused(self, response: httpx.Response) -> None:
        """Note an answer that is an error.

        Raises:
            ServiceError: the same again would be answered alike.
        """
        self._failure = failure_of(response)
        known = (self._failure.status, self._failure.code)
        if response.status_code not in AGAIN and known != (500, FOREIGN):
            raise self._failure
        self._wait_s = max(self._wait_s, _seconds(response.headers.get("Retry-After")))

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt.

        Raises:
            ServiceError: there is none: that was the last, or the time does not suffice.
        """
        if self._sent >= self._most or time.monotonic() + self._wait_s > self._end:
            raise self._failure
        return self._wait_s


class EventReader:
    """A reader of a stream of ours: one line of data an event; comments are left out."""

    def __init__(self) -> None:
        self._rest, self._name, self.last = b"", "", ""

    def read(self, chunk: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the events that a chunk ends.

        Lines end at line feeds alone (httpx cuts at all separators).

        Raises:
            ServiceError: the event is an error.
            ValueError, KeyError, TypeError: the stream is not of our service.
        """
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        for line in whole:
            key, _, value = line.decode(errors="replace").rstrip("\r").partition(": ")
            if key == "event":
                self._name = value
            elif key == "data":
                data = json.loads(value)
                if self._name == "error":
                    raise _error_of(0, data)
                self.last = self._name
                yield self._name, data

    def check_whole(self) -> None:
        """Refuse a stream that ended before the answer (ServiceError)."""
        if self.last != "answer":
            raise ServiceError(0, "unreachable", "the stream ended before the answer; ask again")


H = TypeVar("H", httpx.Client, httpx.AsyncClient)


def token_header(token: str | None) -> dict[str, str]:
    """Return the header that brings a token: the one given, or what SEEDSET_TOKEN holds.

    Raises:
        ValueError: it holds a sign that cannot be sent; says which, and not the token.
    """
    found = checked_token("token", token or "") or checked_token(TOKEN, os.environ.get(TOKEN, ""))
    return {"Authorization": f"Bearer {found}"} if found else {}


def build_request(client: httpx.Client | httpx.AsyncClient, call: Call) -> httpx.Request:
    """Return a request to send.

    Raises:
        ServiceError: what was given cannot be written as JSON, or in an address.
    """
    try:
        return client.build_request(call.method, call.path, **call.given)
    except (ValueError, TypeError, RecursionError, httpx.InvalidURL) as error:
        reason = f"the request cannot be written ({error}); give texts in UTF-8, finite numbers, lists"
        raise ServiceError(0, UNSENT, reason) from None


def checked_token(source: str, given: str) -> str:
    """Return a token without the blanks and the line break around it, as files and secrets end with."""
    token = given.strip()
    for place, sign in enumerate(token, 1):
        if not " " <= sign <= "~":
            name = unicodedata.name(sign, "a control character").lower()
            raise ValueError(
                f"{source}: character {place} of {len(token)} is U+{ord(sign):04X} ({name}), which no token "
                "holds; copy the token again"
            )
    return token


def http_client(kind: type[H], url: str, **settings: Any) -> H:
    """Return a client of one address; what is asked of this machine never goes through a proxy.

    Raises:
        ValueError: the address is none; or a proxy's that the environment names.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(f"{url!r}: no address ({error}); write http://host:port") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r}: no address of HTTP; write http://host:port")
    here = _is_loopback(parsed.host)
    try:
        # The environment also names certificates, which https needs on this machine as well.
        direct = {f"{scheme}://": None for scheme in ("http", "https", "all")} if here else {}
        uses_environment = not here or parsed.scheme == "https"
        return kind(base_url=parsed, mounts=direct, trust_env=uses_environment, **settings)
    except (ValueError, ImportError, OSError) as error:
        raise ValueError(
            f"{url}: no connection can be made ({error}); check HTTP_PROXY and SSL_CERT_FILE"
        ) from None


def _is_loopback(host: str) -> bool:
    name = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def read(response: httpx.Response, key: str | None = None) -> Any:
    """Return the object that an answer holds, or what its ``key`` does.

    Raises:
        ServiceError: it is not in the service's words: something else answers at this address.
    """
    try:
        found = response.json()
        if not isinstance(found, dict):
            raise TypeError
        return found if key is None else found[key]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise not_ours(response) from None


def unreachable(error: httpx.RequestError) -> ServiceError:
    """Return the error of a request that was not answered, or not to the end."""
    return ServiceError(0, "unreachable", str(error) or type(error).__name__)


def not_ours(response: httpx.Response) -> ServiceError:
    """Return the error of an answer that is not in the service's words."""
    about = f"status {response.status_code}, and an answer that is not the service's; check the address"
    return ServiceError(response.status_code, FOREIGN, about)


def failure_of(response: httpx.Response) -> ServiceError:
    """Return the error that a response holds."""
    try:
        return _error_of(response.status_code, response.json())
    except (ValueError, KeyError, TypeError, httpx.StreamError):  # not of our service: a proxy between
        return ServiceError(response.status_code, FOREIGN, f"status {response.status_code}")


def _error_of(status: int, body: Mapping[str, Any]) -> ServiceError:
    error = body["error"]
    return ServiceError(status, error["code"], error["message"], error["field"], error["suggestions"])


def _seconds(retry_after: str | None) -> float:
    known = retry_after and retry_after.isdecimal() and retry_after.isascii() and len(retry_after) < 10
    return float(retry_after) if retry_after and known else 0.0
