"""Call the HTTP service from programs: needs httpx only.

::

    from serve.client import Client

    with Client("http://localhost:8000") as client:                    # token: SEEDSET_TOKEN
        answer = client.expand(["Japan", "Thailand"], ["Norway"], top_k=10, explain=True)
        for result in answer["results"]:
            print(result["rank"], result["name"], result["score"])

        new = {"name": "Atlantia", "sentences": ["The king of Atlantia opened the parliament."]}
        client.expand(["Japan", new], filter={"continent": ["Asia", "Africa"]}, deadline_ms=500)

        for event, data in client.stream(["Japan"], method="genexpan"):
            if event == "round":
                print([entity["name"] for entity in data["new"]])

A query changes nothing, so one that was lost on its way is simply asked again.
"""

from __future__ import annotations

import ipaddress
import json
import os
import random
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, NotRequired, Self, TypedDict
from urllib.parse import quote

import httpx

Seed = str | int | Mapping[str, Any]
"""A name or alias, an entity id, ``{"name", "sentences"}`` of a new entity, or ``{"name", "weight"}``."""

TOKEN = "SEEDSET_TOKEN"

AGAIN = (429, 502, 503)
"""Statuses after which a request is sent again; and a 500 that is not in the service's words, but of a
replica that was lost."""
FOREIGN = "http"
"""The code of errors that are not in the service's words."""

CURRENT = "current"
"""Stands for the id of the bundle that is served."""

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


class Answer(TypedDict):
    """An answered query.

    ``degraded`` says what was left out, ``reasoning`` what a chain of thought said, ``counts`` what stages
    counted.
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


class Client:
    """A client of one service.

    Args:
        url: such as ``http://localhost:8000``.
        token: a bearer token; by default what SEEDSET_TOKEN holds, if it is set. Blanks around
            it do not count.
        timeout: seconds for a call with all its repetitions.
        attempts: times that a request is sent at most.
        transport: in place of the network, for tests.

    Raises:
        ValueError: a token with a sign that cannot be sent; says which, and not the token.

    Raises (every method):
        ServiceError: with what the service said.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 60.0,
        attempts: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        token = _token("token", token or "") or _token(TOKEN, os.environ.get(TOKEN, ""))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._timeout, self._attempts = timeout, attempts
        self._http = _http_client(url, headers=headers, timeout=timeout, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def expand(self, positive: Sequence[Seed], negative: Sequence[Seed] = (), **options: Any) -> Answer:
        """Return entities like the positive seeds and unlike the negative ones.

        Args:
            positive: seeds of the wanted set.
            negative: what is not wanted; one seed of either kind at least.
            options: method, top_k, offset, min_score, exclude, filter, class_name, positive_attributes,
                negative_attributes, explain, deadline_ms, bundle, id, options: as in the HTTP request.
                ``options={"SegmentRerank.length": 8}`` changes settings of stages for this query.
        """
        answer: Answer = _read(self._call("POST", "/v1/expand", json=_query(positive, negative, options)))
        return answer

    def expand_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an answer, or ``{"id", "error"}``, for each query (the objects of /v1/expand), in order."""
        response = self._call("POST", "/v1/expand/batch", json={"queries": list(queries)})
        results: list[dict[str, Any]] = _read(response, "results")
        return results

    def stream(
        self, positive: Sequence[Seed], negative: Sequence[Seed] = (), **options: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ("stage" or "round", data) while the query is answered, then ("answer", the answer).

        Takes what :meth:`expand` takes. An ``error`` event is raised. Not repeated once it has begun.
        """
        request = self._request("POST", "/v1/expand/stream", json=_query(positive, negative, options))
        response = self._send(request, stream=True)
        event = ""
        try:
            for event, data in _events(_lines(response.iter_bytes())):
                if event == "error":
                    raise _error_of(0, data)
                yield event, data
        except httpx.RequestError as error:
            raise ServiceError(0, "unreachable", str(error) or type(error).__name__) from None
        except (ValueError, KeyError, TypeError):
            raise _not_ours(response) from None
        finally:
            response.close()
        if event != "answer":
            raise ServiceError(0, "unreachable", "the stream ended before the answer; ask again")

    def type_text(self, text: str, mentions: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        """Return what the mentions of a text are, by the bundle's typing model.

        Args:
            text: its mentions are marked, "We flew to [[Oslo]].", unless their places are given.
            mentions: first character and the one after the last of each.
        """
        places = None if mentions is None else [{"start": start, "end": end} for start, end in mentions]
        asked = {"text": text} if places is None else {"text": text, "mentions": places}
        found: dict[str, Any] = _read(self._call("POST", "/v1/type", json=asked))
        return found

    def entities(
        self, search: str = "", limit: int = 10, offset: int = 0, fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return entities with a name or alias like a text, best first; without a text all, by id.

        Args:
            search: words or parts of words, well spelt or not.
            limit: at most so many, after the first ``offset``.
            fields: that each comes with, of "description" and "attributes".
        """
        params = {"search": search, "limit": limit, "offset": offset, "fields": ",".join(fields)}
        entities: list[dict[str, Any]] = _read(self._call("GET", "/v1/entities", params=params), "entities")
        return entities

    def look_up(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return of each name or alias the ``entity``, or ``suggestions`` where it is None."""
        response = self._call("POST", "/v1/entities/lookup", json={"names": list(names)})
        results: list[dict[str, Any]] = _read(response, "results")
        return results

    def entity(
        self,
        given: str | int,
        sentences: int = 5,
        neighbours: int = 10,
        bundle: str | None = None,
    ) -> dict[str, Any]:
        """Return what is known of an entity, by its name or an alias (a string), or by its id (a number).

        Args:
            given: "3" is the entity of that name, 3 the one of that id.
            sentences: at most so many.
            neighbours: likewise.
            bundle: the one that the id is of, from the answer that named it: another one's is refused.
        """
        params = {"sentences": sentences, "neighbours": neighbours}
        if isinstance(given, str):
            return self._object(f"/v1/entities/{_segment(given)}", params)
        return self._object(f"/v1/bundles/{_segment(bundle or CURRENT)}/entities/{given}", params)

    def attributes(self) -> list[dict[str, Any]]:
        """Return what a query may filter by."""
        listed: list[dict[str, Any]] = _read(self._call("GET", "/v1/attributes"), "attributes")
        return listed

    def methods(self) -> dict[str, Any]:
        """Return the methods, and which is the default."""
        return self._object("/v1/methods")

    def bundle(self) -> dict[str, Any]:
        """Return what is served, and what it was made from."""
        return self._object("/v1/bundle")

    def ready(self) -> bool:
        """Return whether every stage answers now; False where nothing answers at all."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.RequestError:
            return False

    def _object(self, path: str, params: Mapping[str, int] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = _read(self._call("GET", path, params=params))
        return found

    def _call(self, method: str, path: str, **given: Any) -> httpx.Response:
        return self._send(self._request(method, path, **given))

    def _request(self, method: str, path: str, **given: Any) -> httpx.Request:
        """Return a request to send.

        Raises:
            ServiceError: what was given cannot be written as JSON, or in an address.
        """
        try:
            return self._http.build_request(method, path, **given)
        except (ValueError, TypeError, RecursionError, httpx.InvalidURL) as error:
            reason = f"the request cannot be written ({error}); give texts in UTF-8, finite numbers, lists"
            raise ServiceError(0, UNSENT, reason) from None

    def _send(self, request: httpx.Request, stream: bool = False) -> httpx.Response:
        """Send a request, again where that may help, within the attempts and the time."""
        end = time.monotonic() + self._timeout
        for attempt in range(1, self._attempts + 1):
            wait_s = min(FIRST_PAUSE_S * 2 ** (attempt - 1) * random.uniform(0.5, 1), LONGEST_PAUSE_S)
            request.extensions["timeout"] = httpx.Timeout(max(end - time.monotonic(), 0.001)).as_dict()
            try:
                response = self._http.send(request, stream=stream)
            except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.DecodingError) as error:
                # The same again would fail again.
                raise ServiceError(0, UNSENT, str(error) or type(error).__name__) from None
            except httpx.TransportError as error:
                failure = ServiceError(0, "unreachable", str(error) or type(error).__name__)
            else:
                if response.is_success:
                    return response
                with suppress(httpx.RequestError):  # it broke off: the status says enough
                    response.read()
                response.close()
                failure = _failure_of(response)
                if response.status_code not in AGAIN and (failure.status, failure.code) != (500, FOREIGN):
                    raise failure
                wait_s = max(wait_s, _seconds(response.headers.get("Retry-After")))
            if attempt == self._attempts or time.monotonic() + wait_s > end:
                break
            time.sleep(wait_s)
        raise failure


def _token(source: str, given: str) -> str:
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


def _query(positive: Sequence[Seed], negative: Sequence[Seed], options: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(positive, str) or isinstance(negative, str):
        raise TypeError("seeds are a list, also where there is one")
    return {"positive": list(positive), "negative": list(negative), **options}


def _segment(text: str) -> str:
    """Return a text as one segment of a path; a name of dots alone would be a step to another path."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")


def _http_client(url: str, **settings: Any) -> httpx.Client:
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
        return httpx.Client(base_url=parsed, mounts=direct, trust_env=uses_environment, **settings)
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


def _read(response: httpx.Response, key: str | None = None) -> Any:
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
        raise _not_ours(response) from None


def _not_ours(response: httpx.Response) -> ServiceError:
    about = f"status {response.status_code}, and an answer that is not the service's; check the address"
    return ServiceError(response.status_code, FOREIGN, about)


def _failure_of(response: httpx.Response) -> ServiceError:
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


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    """Yield the lines of a stream, which end at line feeds alone (httpx cuts at all separators)."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace").rstrip("\r")


def _events(lines: Iterator[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the events of a stream of ours: one line of data each; comments are left out."""
    name = ""
    for line in lines:
        key, _, value = line.partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)
