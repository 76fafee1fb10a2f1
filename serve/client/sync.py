"""The client that waits for each answer."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx

from serve.client import calls
from serve.client.calls import Seed
from serve.client.wire import (
    Answer,
    Attempts,
    EventReader,
    build_request,
    http_client,
    not_ours,
    read,
    token_header,
    unreachable,
)


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
        self._timeout, self._attempts = timeout, attempts
        self._http = http_client(
            httpx.Client, url, headers=token_header(token), timeout=timeout, transport=transport
        )

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
        answer: Answer = self._ask(calls.expand(positive, negative, options))
        return answer

    def expand_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an answer, or ``{"id", "error"}``, for each query (the objects of /v1/expand), in order."""
        results: list[dict[str, Any]] = self._ask(calls.expand_batch(queries))
        return results

    def map_entities(
        self,
        positive: Sequence[Seed],
        negative: Sequence[Seed] = (),
        entities: Sequence[str | int] = (),
        explain: bool = False,
    ) -> dict[str, Any]:
        """Return seeds and other entities on a plane: ``points`` with ``x`` and ``y``, nearer if more alike.

        Args:
            positive: seeds of the wanted set.
            negative: what is not wanted; one seed of either kind at least.
            entities: at most 400 others, such as those of an answer, by name or id.
            explain: with the nearest seeds, sentences and images of every entity.
        """
        found: dict[str, Any] = self._ask(calls.map_entities(positive, negative, entities, explain))
        return found

    def stream(
        self, positive: Sequence[Seed], negative: Sequence[Seed] = (), **options: Any
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield ("stage" or "round", data) while the query is answered, then ("answer", the answer).

        Takes what :meth:`expand` takes. An ``error`` event is raised. Not repeated once it has begun.
        """
        request = build_request(self._http, calls.expand(positive, negative, options, "/stream"))
        response = self._send(request, stream=True)
        events = EventReader()
        try:
            for chunk in response.iter_bytes():
                yield from events.read(chunk)
        except httpx.RequestError as error:
            raise unreachable(error) from None
        except (ValueError, KeyError, TypeError):
            raise not_ours(response) from None
        finally:
            response.close()
        events.check_whole()

    def type_text(self, text: str, mentions: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        """Return what the mentions of a text are, by the bundle's typing model.

        Args:
            text: its mentions are marked, "We flew to [[Oslo]].", unless their places are given.
            mentions: first character and the one after the last of each.
        """
        found: dict[str, Any] = self._ask(calls.type_text(text, mentions))
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
        found: list[dict[str, Any]] = self._ask(calls.entities(search, limit, offset, fields))
        return found

    def look_up(self, names: Sequence[str], fields: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return of each name or alias the ``entity``, or ``suggestions`` where it is None.

        Args:
            names: at most 1,000.
            fields: that each entity comes with, of "description" and "attributes".
        """
        results: list[dict[str, Any]] = self._ask(calls.look_up(names, fields))
        return results

    def entity(
        self,
        given: str | int,
        sentences: int = 5,
        neighbours: int = 10,
        bundle: str | None = None,
        vectors: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return what is known of an entity, by its name or an alias (a string), or by its id (a number).

        Args:
            given: "3" is the entity of that name, 3 the one of that id.
            sentences: at most so many.
            neighbours: likewise.
            bundle: the one that the id is of, from the answer that named it: another one's is refused.
            vectors: views of which its unit vectors come along; each may be a seed: ``{"vector": {…}}``.
        """
        found: dict[str, Any] = self._ask(calls.entity(given, sentences, neighbours, bundle, vectors))
        return found

    def set_agreement(self, set_id: str, curator: str = "", limit: int = 100) -> dict[str, Any]:
        """Return how far the curators of a named set agree, where they do not, and what one has not judged.

        Args:
            set_id: as the list of sets has it.
            curator: whose second opinion is wanted: ``to_judge`` is what she has not judged.
            limit: disagreements, and entities to judge, at most.
        """
        found: dict[str, Any] = self._ask(calls.set_agreement(set_id, curator, limit))
        return found

    def upsert(
        self,
        name: str,
        sentences: Sequence[str],
        aliases: Sequence[str] = (),
        description: str = "",
        attributes: Mapping[str, Sequence[str]] | None = None,
    ) -> dict[str, Any]:
        """Add an entity, or replace one, without a new bundle; return its ``id`` and the ``overlay`` version.

        Args:
            name: of the entity.
            sentences: that mention it by this name; at most 16.
            aliases: other names.
            description: a text.
            attributes: values by name.
        """
        call = calls.upsert(name, sentences, aliases, description, attributes or {})
        found: dict[str, Any] = self._ask(call)
        return found

    def delete(self, name: str) -> dict[str, Any]:
        """Delete an entity, of the bundle or added, by exactly its name; no answer has it from then on."""
        found: dict[str, Any] = self._ask(calls.delete(name))
        return found

    def overlay(self, limit: int = 100, offset: int = 0) -> dict[str, Any]:
        """Return the entities that were added or deleted since the bundle was made, last changed first."""
        found: dict[str, Any] = self._ask(calls.overlay(limit, offset))
        return found

    def attributes(self) -> list[dict[str, Any]]:
        """Return what a query may filter by."""
        listed: list[dict[str, Any]] = self._ask(calls.ATTRIBUTES)
        return listed

    def methods(self) -> dict[str, Any]:
        """Return the methods, and which is the default."""
        listed: dict[str, Any] = self._ask(calls.METHODS)
        return listed

    def bundle(self) -> dict[str, Any]:
        """Return what is served, and what it was made from."""
        found: dict[str, Any] = self._ask(calls.BUNDLE)
        return found

    def ready(self) -> bool:
        """Return whether every stage answers now; False where nothing answers at all."""
        try:
            return self._http.get(calls.READY).status_code == 200
        except httpx.RequestError:
            return False

    def _ask(self, call: calls.Call) -> Any:
        return read(self._send(build_request(self._http, call)), call.key)

    def _send(self, request: httpx.Request, stream: bool = False) -> httpx.Response:
        """Send a request, again where that may help, within the attempts and the time."""
        attempts = Attempts(self._timeout, self._attempts)
        while True:
            attempts.begin(request)
            try:
                response = self._http.send(request, stream=stream)
            except (httpx.TransportError, httpx.DecodingError) as error:
                attempts.lost(error)
            else:
                if response.is_success:
                    return response
                with suppress(httpx.RequestError):  # it broke off: the status says enough
                    response.read()
                response.close()
                attempts.refused(response)
            time.sleep(attempts.pause_s())
