"""The client whose methods are awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
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


class AsyncClient:
    """A client of one service, as :class:`Client` is, whose methods are awaited.

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
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout, self._attempts = timeout, attempts
        self._http = http_client(
            httpx.AsyncClient, url, headers=token_header(token), timeout=timeout, transport=transport
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def expand(self, positive: Sequence[Seed], negative: Sequence[Seed] = (), **options: Any) -> Answer:
        """Return entities like the positive seeds and unlike the negative ones."""
        answer: Answer = await self._ask(calls.expand(positive, negative, options))
        return answer

    async def expand_batch(self, queries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return an answer, or ``{"id", "error"}``, for each query (the objects of /v1/expand), in order."""
        results: list[dict[str, Any]] = await self._ask(calls.expand_batch(queries))
        return results

    async def map_entities(
        self,
        positive: Sequence[Seed],
        negative: Sequence[Seed] = (),
        entities: Sequence[str | int] = (),
        explain: bool = False,
    ) -> dict[str, Any]:
        """Return seeds and other entities on a plane: ``points`` with ``x`` and ``y``, nearer if more alike.

        ``explain``: with the nearest seeds, sentences and images of every entity.
        """
        found: dict[str, Any] = await self._ask(calls.map_entities(positive, negative, entities, explain))
        return found

    async def stream(
        self, positive: Sequence[Seed], negative: Sequence[Seed] = (), **options: Any
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield ("stage" or "round", data) while the query is answered, then ("answer", the answer).

        Takes what :meth:`expand` takes. An ``error`` event is raised. Not repeated once it has begun.
        """
        request = build_request(self._http, calls.expand(positive, negative, options, "/stream"))
        response = await self._send(request, stream=True)
        events = EventReader()
        try:
            async for chunk in response.aiter_bytes():
                for event in events.read(chunk):
                    yield event
        except httpx.RequestError as error:
            raise unreachable(error) from None
        except (ValueError, KeyError, TypeError):
            raise not_ours(response) from None
        finally:
            await response.aclose()
        events.check_whole()

    async def type_text(self, text: str, mentions: Sequence[tuple[int, int]] | None = None) -> dict[str, Any]:
        """Return what the mentions of a text are, by the bundle's typing model."""
        found: dict[str, Any] = await self._ask(calls.type_text(text, mentions))
        return found

    async def entities(
        self, search: str = "", limit: int = 10, offset: int = 0, fields: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """Return entities with a name or alias like a text, best first; without a text all, by id."""
        found: list[dict[str, Any]] = await self._ask(calls.entities(search, limit, offset, fields))
        return found

    async def look_up(self, names: Sequence[str], fields: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Return of each name or alias the ``entity``, or ``suggestions`` where it is None.

        ``fields`` are those that each entity comes with, of "description" and "attributes".
        """
        results: list[dict[str, Any]] = await self._ask(calls.look_up(names, fields))
        return results

    async def entity(
        self,
        given: str | int,
        sentences: int = 5,
        neighbours: int = 10,
        bundle: str | None = None,
        vectors: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Return what is known of an entity, by its name or an alias (a string), or by its id (a number)."""
        found: dict[str, Any] = await self._ask(calls.entity(given, sentences, neighbours, bundle, vectors))
        return found

    async def set_agreement(self, set_id: str, curator: str = "", limit: int = 100) -> dict[str, Any]:
        """Return how far the curators of a named set agree, where they do not, and what one has not judged.

        Args:
            set_id: as the list of sets has it.
            curator: whose second opinion is wanted: ``to_judge`` is what she has not judged.
            limit: disagreements, and entities to judge, at most.
        """
        found: dict[str, Any] = await self._ask(calls.set_agreement(set_id, curator, limit))
        return found

    async def upsert(
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
        found: dict[str, Any] = await self._ask(call)
        return found

    async def delete(self, name: str) -> dict[str, Any]:
        """Delete an entity, of the bundle or added, by exactly its name; no answer has it from then on."""
        found: dict[str, Any] = await self._ask(calls.delete(name))
        return found

    async def overlay(self, limit: int = 100, offset: int = 0) -> dict[str, Any]:
        """Return the entities that were added or deleted since the bundle was made, last changed first."""
        found: dict[str, Any] = await self._ask(calls.overlay(limit, offset))
        return found

    async def attributes(self) -> list[dict[str, Any]]:
        """Return what a query may filter by."""
        listed: list[dict[str, Any]] = await self._ask(calls.ATTRIBUTES)
        return listed

    async def methods(self) -> dict[str, Any]:
        """Return the methods, and which is the default."""
        listed: dict[str, Any] = await self._ask(calls.METHODS)
        return listed

    async def bundle(self) -> dict[str, Any]:
        """Return what is served, and what it was made from."""
        found: dict[str, Any] = await self._ask(calls.BUNDLE)
        return found

    async def ready(self) -> bool:
        """Return whether every stage answers now; False where nothing answers at all."""
        try:
            return (await self._http.get(calls.READY)).status_code == 200
        except httpx.RequestError:
            return False

    async def _ask(self, call: calls.Call) -> Any:
        return read(await self._send(build_request(self._http, call)), call.key)

    async def _send(self, request: httpx.Request, stream: bool = False) -> httpx.Response:
        """Send a request, again where that may help, within the attempts and the time."""
        attempts = Attempts(self._timeout, self._attempts)
        while True:
            attempts.begin(request)
            try:
                response = await self._http.send(request, stream=stream)
            except (httpx.TransportError, httpx.DecodingError) as error:
                attempts.lost(error)
            else:
                if response.is_success:
                    return response
                with suppress(httpx.RequestError):  # it broke off: the status says enough
                    await response.aread()
                await response.aclose()
                attempts.refused(response)
            await asyncio.sleep(attempts.pause_s())
