"""Answers requests: names to ids, dispatch to the stages, ids to names. Knows no Ray, no HTTP.

Everything that takes more than a look in a dictionary runs in a thread, off the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from engine.bundle import Manifest
from engine.errors import QueryError, UserError
from engine.query import Expansion, Query, from_rows, to_rows
from engine.stages.base import finish
from engine.vocabulary import Vocabulary
from serve.errors import FailedError, UnknownMethodError, body_of, in_words
from serve.plan import DEFAULT
from serve.protocol import BatchRequest, ExpandRequest, answer_of, entity_of
from serve.runner import Row
from serve.settings import ServeSettings

Json = dict[str, Any]


class Dispatch(Protocol):
    """Runs a method's stages, wherever they live."""

    async def __call__(self, method: str, rows: Sequence[Row], deadline: float) -> list[Row]:
        """Return a row for each row, in order (see :mod:`serve.runner`)."""


class Service:
    """One bundle's methods over one vocabulary.

    Args:
        methods: descriptions by name.
        default: the name of the method that ``default`` stands for.
    """

    def __init__(
        self,
        settings: ServeSettings,
        manifest: Manifest,
        vocabulary: Vocabulary,
        methods: Mapping[str, str],
        default: str,
        dispatch: Dispatch,
    ) -> None:
        self.settings, self.manifest, self.methods = settings, manifest, methods
        self._vocabulary, self._default, self._dispatch = vocabulary, default, dispatch
        vocabulary.closest("")  # builds the look-up tables now, not under the first request
        vocabulary.find("")

    async def expand(self, request: ExpandRequest) -> Json:
        """Answer one query.

        Raises:
            UserError: what is wrong with the query, or why it cannot be answered now.
            TimeoutError: the time was over.
        """
        (answer,) = await self._answer([request])
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def expand_batch(self, batch: BatchRequest) -> Json:
        """Answer several queries; one that cannot be answered gets its own ``error``.

        Raises:
            QueryError: more queries than a batch may hold.
        """
        if not 1 <= len(batch.queries) <= self.settings.max_queries:
            limit = self.settings.max_queries
            raise QueryError(f"a batch holds 1..{limit} queries, this one {len(batch.queries)}")
        checked = [self._check(query) for query in batch.queries]
        answers = iter(await self._answer([c for c in checked if isinstance(c, ExpandRequest)]))
        results = [next(answers) if isinstance(c, ExpandRequest) else c for c in checked]
        return {
            "results": [
                _error_of(result, given) if isinstance(result, Exception) else result
                for result, given in zip(results, batch.queries, strict=True)
            ]
        }

    async def complete(self, prefix: str, limit: int) -> Json:
        """Return entities with a spelling that begins with ``prefix``."""
        return await asyncio.to_thread(self._complete, prefix, limit)

    async def entity(self, given: str) -> Json:
        """Return one entity by its name, an alias, or its id in digits (a name of digits wins).

        Raises:
            UnknownEntityError: there is none; names the closest.
        """
        found = self._vocabulary.find(given)
        if found is None and given.isdecimal() and len(given) < 11:
            found = self._vocabulary.find(int(given))
        if found is None:
            found = await asyncio.to_thread(self._vocabulary.resolve, given)
        return entity_of(self._vocabulary, found)

    def bundle(self) -> Json:
        """Return what is served, and what it was made from."""
        manifest = self.manifest.model_dump(mode="json", exclude={"files"})
        return {**manifest, "entities": len(self._vocabulary), "files": sorted(self.manifest.files)}

    def listing(self) -> Json:
        """Return the methods and what they are made of."""
        methods = [{"name": n, "description": d} for n, d in self.methods.items()]
        return {"default": self._default, "methods": methods}

    def _check(self, given: object) -> ExpandRequest | Exception:
        try:
            return ExpandRequest.model_validate(given)
        except ValidationError as error:
            return QueryError(in_words(error.errors()))

    async def _answer(self, requests: Sequence[ExpandRequest]) -> list[Json | Exception]:
        """Answer each request or say why not, in order; requests for one method go together."""
        prepared = await asyncio.to_thread(lambda: [self._prepare(r) for r in requests])
        answers: list[Json | Exception] = []
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(prepared):
            answers.append(one if isinstance(one, Exception) else {})
            if not isinstance(one, Exception):
                groups.setdefault(one[0], []).append(place)
        deadline = time.time() + self.settings.timeout_s

        async def run(method: str, places: list[int]) -> None:
            queries = [one[1] for p in places if not isinstance(one := prepared[p], Exception)]
            rows = await self._dispatch(method, to_rows([Expansion(q) for q in queries]), deadline)
            rendered = await asyncio.to_thread(lambda: [self._render(method, row) for row in rows])
            for place, answer in zip(places, rendered, strict=True):
                answers[place] = answer

        async with asyncio.timeout(self.settings.timeout_s):
            await asyncio.gather(*(run(method, places) for method, places in groups.items()))
        return answers

    def _prepare(self, request: ExpandRequest) -> tuple[str, Query] | Exception:
        """Return the method's name and the query with ids for names, or what is wrong with it."""
        name = request.method
        method = self._default if name == DEFAULT and DEFAULT not in self.methods else name
        where = f"query {request.id!r}"
        try:
            if method not in self.methods:
                raise UnknownMethodError(name, list(self.methods))
            if not 1 <= request.top_k <= self.settings.max_top_k:
                limit = self.settings.max_top_k
                raise QueryError(f"{where}: top_k is {request.top_k}, must lie in 1..{limit}")
            positive = self._vocabulary.resolve_all(request.positive, f"{where}, positive")
            negative = self._vocabulary.resolve_all(request.negative, f"{where}, negative")
            if both := [self._vocabulary.names[i] for i in positive if i in set(negative)]:
                raise QueryError(f"{where}: {both[0]!r} is a positive and a negative seed at once")
            return method, Query(request.id, positive, negative, request.top_k)
        except UserError as error:
            return error

    def _render(self, method: str, row: Row) -> Json | Exception:
        if failed := row.get("failed"):
            return FailedError(**failed)
        (expansion,) = from_rows([row])
        return answer_of(finish(expansion), self._vocabulary, method, self.manifest.id)

    def _complete(self, prefix: str, limit: int) -> Json:
        names = self._vocabulary.starting_with(prefix, limit)
        return {"entities": [entity_of(self._vocabulary, self._vocabulary.resolve(n)) for n in names]}


def _error_of(error: Exception, given: Any) -> Json:
    """Return the answer of a query in a batch that has none, with its id if it gave one."""
    known = given.get("id") if isinstance(given, dict) else None
    return {"id": known if isinstance(known, str) else None, **body_of(error)}
