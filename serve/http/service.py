"""Answer requests: names to ids, dispatch to the stages, ids to names. Knows no Ray, no HTTP.

What takes more than a fraction of a millisecond runs in a thread, off the event loop; what takes less does
not, since handing it over would take longer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from engine.errors import UserError, did_you_mean
from engine.query import Deadline, Expansion, Query
from engine.stages.base import finish
from engine.stages.overlay import without_gone
from engine.storage.workspace import Workspace
from serve.errors import unwrapped
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.graph.plan import NEIGHBOURS
from serve.http import listings
from serve.http.errors import FailedError, Problem, ProblemError, check_bundle, internal, invalid, problem_of
from serve.http.explanations import explanations
from serve.http.images import Image, ImageAddresses, read_image
from serve.http.requests import BatchRequest, ExpandRequest, answer_of, entity_of, id_of, request_of
from serve.http.resolve import Arrival, ResolvedQuery, is_quick, resolve_query
from serve.http.trace import Trace
from serve.messages import Dispatch, Failure, RoundDone, StageDone
from serve.settings import ServeSettings
from serve.telemetry.logs import log_withheld
from serve.telemetry.metrics import Metrics, merge_replica_metrics

logger = logging.getLogger("seedset.serve")

Json = dict[str, Any]
Event = tuple[str, Json]
"""Name and data of an event in the progress of a query."""

ANSWER_GRACE_S = 1.0
"""Seconds after its deadline in which a query may still bring partial results."""

FEW_QUERIES = 20
MANY_RESULTS = 500
"""Limits up to which (for results: below which) work is done on the event loop."""

CURRENT = "current"
"""Stands for the id of the bundle that is served."""

READY_S = 1.0
"""Seconds for which a result of the readiness check holds."""


async def ready_always() -> Mapping[str, str]:
    """Return no stages: for a service whose stages are in its own process, ready with it."""
    return {}


class Service:
    """A service that answers from a snapshot, which may be replaced: a request uses one to its end.

    Args:
        settings: limits.
        snapshot: what is served now.
        dispatch: runs the stages.
        metrics: counts.
        ready: says of each stage "ok", or why it does not answer.
        counted: gathers the metrics of all replicas, where there are several.
    """

    def __init__(
        self,
        settings: ServeSettings,
        snapshot: BundleSnapshot,
        dispatch: Dispatch,
        metrics: Metrics,
        ready: Callable[[], Awaitable[Mapping[str, str]]] = ready_always,
        counted: Callable[[], Awaitable[Sequence[bytes]]] | None = None,
    ) -> None:
        self.settings, self.snapshot, self.metrics = settings, snapshot, metrics
        self.refused: tuple[str, str] | None = None
        """Id of a newer bundle that could not be served, and why."""
        self._dispatch, self._ready, self._counted = dispatch, ready, counted
        self.draining = False
        """True once the service is to end: what is under way is answered, and nothing else."""
        self.under_way = 0
        """HTTP requests that have begun and not ended."""
        self._workspace = Workspace.open(settings.workspace)
        self._known_ready: tuple[float, asyncio.Future[Mapping[str, str]]] | None = None

    def drain(self) -> int:
        """Be not ready, and refuse new requests, from now on; return how many are under way."""
        self.draining, self._known_ready = True, None
        return self.under_way

    async def metrics_text(self) -> bytes:
        """Return the metrics of all replicas in Prometheus' text format."""
        if self._counted is None:
            return await asyncio.to_thread(self.metrics.render)
        return await asyncio.to_thread(merge_replica_metrics, await self._counted())

    async def expand(self, request: ExpandRequest, trace: Trace) -> Json:
        """Answer one query.

        Raises:
            ProblemError: what is wrong with the query, or why it cannot be answered now.
        """
        (answer,) = await self._answers(self.snapshot, [request], trace)
        if isinstance(answer, Problem):
            raise ProblemError(answer)
        return answer

    async def expand_batch(self, batch: BatchRequest, trace: Trace) -> Json:
        """Answer several queries; one that cannot be answered gets its own ``error``."""
        if len(batch.queries) > FEW_QUERIES:
            requests = await asyncio.to_thread(lambda: [request_of(q) for q in batch.queries])
        else:
            requests = [request_of(query) for query in batch.queries]
        results = await self._answers(self.snapshot, requests, trace)
        return {
            "results": [
                {"id": id_of(given), **result.body} if isinstance(result, Problem) else result
                for result, given in zip(results, batch.queries, strict=True)
            ]
        }

    def check_size(self, batch: BatchRequest) -> None:
        """Refuse a batch of none or of too many queries (ProblemError)."""
        limit = self.settings.max_queries
        if not 1 <= len(batch.queries) <= limit:
            raise invalid(f"a batch holds 1..{limit} queries, this one {len(batch.queries)}", "queries")

    async def stream(self, request: ExpandRequest, trace: Trace) -> AsyncGenerator[Event, None]:
        """Return the events of one query: ``stage`` and ``round``, then ``answer`` or ``error``.

        Raises:
            ProblemError: what is wrong with the query; nothing has happened then.
        """
        snapshot = self.snapshot
        (resolved,) = await self._prepare(snapshot, [request], trace)
        if isinstance(resolved, Problem):
            raise ProblemError(resolved)
        return self._events(snapshot, resolved, trace)

    async def entities(self, asked: listings.EntityList) -> Json:
        """Return a page of the vocabulary: what a text finds or a prefix fits, or all."""
        return await asyncio.to_thread(listings.entity_list, self.snapshot, asked)

    async def look_up(self, names: Sequence[str], fields: Sequence[str] = ()) -> Json:
        """Return the entity of each name, or those whose names are like it."""
        within_s = self.settings.timeout_s
        return await asyncio.to_thread(listings.looked_up, self.snapshot, names, within_s, fields)

    def knows(self, name: str) -> bool:
        """Return whether an entity has a name or an alias: one that none has takes as long as a query."""
        return self.snapshot.vocabulary.find(name) is not None

    async def entity(self, given: str, wanted: listings.EntityParts, trace: Trace) -> Json:
        """Return what is known of an entity, by its name or an alias. Digits are a name like any other.

        Raises:
            ProblemError: there is none (404); names the closest.
        """
        snapshot = self.snapshot
        found = snapshot.vocabulary.find(given)
        if found is None:
            closest = await asyncio.to_thread(snapshot.vocabulary.closest, given)
            hint = did_you_mean(given, closest)
            if given.isdecimal():
                hint += f"; the entity of an id is at /v1/bundles/{snapshot.id}/entities/ID"
            message = f"unknown entity {given!r}{hint}"
            raise ProblemError(Problem("unknown_entity", message, 404, None, tuple(closest)))
        return await self._details(snapshot, found, wanted, trace)

    async def entity_by_id(
        self, bundle: str, entity: int, wanted: listings.EntityParts, trace: Trace
    ) -> Json:
        """Return what is known of the entity of an id in a bundle; :data:`CURRENT`: in the one served.

        Raises:
            ProblemError: another bundle is served (409), or it has no such id (404).
        """
        snapshot = self.snapshot
        check_bundle(None if bundle == CURRENT else bundle, snapshot.id)
        if snapshot.vocabulary.find(entity) is None:
            last = len(snapshot.vocabulary) - 1
            message = f"no entity {entity} in the bundle {snapshot.id}: its ids are 0..{last}"
            raise ProblemError(Problem("unknown_entity", message, 404))
        return await self._details(snapshot, entity, wanted, trace)

    async def image(self, entity: int, n: int, sha256: str | None, bundle: str | None) -> Image:
        """Return an image of an entity.

        Args:
            sha256: the digest that its content must have, if any.
            bundle: the one that must be served, if any.

        Raises:
            ProblemError: there is none (404), or another bundle is served (409).
        """
        snapshot = self.snapshot
        check_bundle(bundle, snapshot.id)
        found = await asyncio.to_thread(read_image, snapshot.catalogue, self._workspace, entity, n)
        if found is None:
            raise ProblemError(Problem("not_found", f"no image {n} of the entity {entity}", 404))
        if sha256 not in (None, found.sha256):
            message = f"image {n} of the entity {entity} is another one now; ask for the entity again"
            raise ProblemError(Problem("not_found", message, 404, "sha256"))
        return found

    def bundle(self) -> Json:
        """Return what is served, and what it was made from."""
        return listings.bundle_listing(self.snapshot, self.refused)

    def listing(self) -> Json:
        """Return the methods and what they are made of."""
        return listings.method_listing(self.snapshot)

    async def readiness(self) -> Mapping[str, str]:
        """Return "ok" or a reason for every stage and the bundle's files; asked at most once a second."""
        now = time.monotonic()
        if self._known_ready is None or now - self._known_ready[0] > READY_S:
            self._known_ready = (now, asyncio.ensure_future(self._states()))
        return await asyncio.shield(self._known_ready[1])

    async def _states(self) -> Mapping[str, str]:
        bundle, stages = await asyncio.gather(asyncio.to_thread(self.snapshot.state), self._ready())
        stopping = {"ingress": "the service is stopping"} if self.draining else {}
        return {**stages, "bundle": bundle, **stopping}

    async def _answers(
        self, snapshot: BundleSnapshot, requests: Sequence[ExpandRequest | Problem], trace: Trace
    ) -> list[Json | Problem]:
        """Answer each request or say why not, in order; requests for one route go together."""
        prepared = await self._prepare(snapshot, requests, trace)
        answers: list[Json | Problem] = [one if isinstance(one, Problem) else {} for one in prepared]
        groups: dict[str, list[int]] = {}
        for place, one in enumerate(prepared):
            if not isinstance(one, Problem):
                groups.setdefault(one.route, []).append(place)

        async def run(places: list[int]) -> None:
            resolved = [one for p in places if not isinstance(one := prepared[p], Problem)]
            for place, answer in zip(places, await self._ask(snapshot, resolved, trace), strict=True):
                answers[place] = answer

        if len(groups) == 1:
            await run(*groups.values())
        else:
            await asyncio.gather(*(run(places) for places in groups.values()))
        return answers

    async def _prepare(
        self, snapshot: BundleSnapshot, requests: Sequence[ExpandRequest | Problem], trace: Trace
    ) -> list[ResolvedQuery | Problem]:
        settings, arrival = self.settings, Arrival()

        def prepare() -> list[ResolvedQuery | Problem]:
            return [
                r if isinstance(r, Problem) else resolve_query(r, snapshot, settings, arrival)
                for r in requests
            ]

        few = len(requests) <= FEW_QUERIES
        quick = few and all(isinstance(r, Problem) or is_quick(r, snapshot) for r in requests)
        prepared = prepare() if quick else await asyncio.to_thread(prepare)
        methods = {one.method for one in prepared if isinstance(one, ResolvedQuery)}
        trace.method = methods.pop() if len(methods) == 1 else "several" if methods else ""
        trace.bundle, trace.queries = snapshot.id, len(requests)
        return prepared

    async def _ask(
        self, snapshot: BundleSnapshot, resolved: Sequence[ResolvedQuery], trace: Trace
    ) -> list[Json | Problem]:
        """Run the stages on queries of one route."""
        asked = [Expansion(one.query) for one in resolved]
        outcomes = await self.dispatched(resolved[0].route, snapshot.id, asked, trace)
        pairs = list(zip(resolved, outcomes, strict=True))
        slow = any(one.explain or one.query.selection.facets for one in resolved)
        if sum(one.query.top_k for one in resolved) < MANY_RESULTS and not slow:
            return [self._rendered(snapshot, one, outcome, trace) for one, outcome in pairs]
        return await asyncio.to_thread(lambda: [self._rendered(snapshot, a, o, trace) for a, o in pairs])

    async def dispatched(
        self, route: str, bundle: str, expansions: Sequence[Expansion], trace: Trace
    ) -> list[Expansion | Problem]:
        """Run the stages of a route; return what became of each expansion, or why nothing did, in order.

        Args:
            expansions: of queries with deadlines.
        """
        deadlines = [e.query.deadline for e in expansions if e.query.deadline]
        wait_s = max(deadlines).remaining() + ANSWER_GRACE_S
        try:
            async with asyncio.timeout(wait_s):
                outcomes = await self._dispatch(route, bundle, expansions, trace.request_id)
        except Exception as error:
            problem = self._noted(self._problem(error, trace))
            return [problem for _ in expansions]
        return [self._failed(o, trace) if isinstance(o, Failure) else o for o in outcomes]

    async def _events(
        self, snapshot: BundleSnapshot, resolved: ResolvedQuery, trace: Trace
    ) -> AsyncGenerator[Event, None]:
        """Yield the events of a query. All steps must be taken by one task: its time is limited."""
        names = snapshot.vocabulary.names
        wait_s = resolved.deadline.remaining() + ANSWER_GRACE_S
        happening = self._dispatch.stream(
            resolved.route, snapshot.id, Expansion(resolved.query), trace.request_id
        )
        problem: Problem | None = None
        try:
            async with asyncio.timeout(wait_s), aclosing(_generator(happening)) as events:
                async for event in events:
                    if isinstance(event, StageDone):
                        yield "stage", {**vars(event), "seconds": round(event.seconds, 6)}
                    elif isinstance(event, RoundDone):
                        new = [{"id": i, "name": names[i]} for i in event.new]
                        yield "round", {**vars(event), "new": new}
                    else:
                        found = self._failed(event, trace) if isinstance(event, Failure) else event
                        answer = await asyncio.to_thread(self._rendered, snapshot, resolved, found, trace)
                        yield ("error", answer.body) if isinstance(answer, Problem) else ("answer", answer)
                        return
        except Exception as error:
            problem = self._noted(self._problem(error, trace))
        if problem:
            yield "error", problem.body

    def _rendered(
        self, snapshot: BundleSnapshot, resolved: ResolvedQuery, outcome: Expansion | Problem, trace: Trace
    ) -> Json | Problem:
        """Return a query's answer, or why there is none."""
        if isinstance(outcome, Problem):
            return outcome
        expansion = finish(without_gone(outcome, snapshot.layer))
        trace.degraded += bool(expansion.degraded)
        for note in expansion.degraded:
            stage = note.partition(":")[0]
            self.metrics.degraded(stage if stage in snapshot.stage_names else "other")
        explained = None
        if resolved.explain:
            images = ImageAddresses(self._workspace, snapshot.id)
            try:
                expansion, explained = explanations(expansion, snapshot, images)
            except UserError as error:  # the bundle's files; the other queries of a batch may do without
                return self._problem(error, trace)
        facets, version = snapshot.catalogue.facets(expansion), snapshot.overlay.version
        named = snapshot.vocabulary, resolved.method, snapshot.id
        return answer_of(expansion, *named, explained, facets, version)

    def _failed(self, failure: Failure, trace: Trace) -> Problem:
        """Return the answer to a query that a stage could not answer."""
        problem = internal(trace.request_id) if failure.status == 500 else problem_of(FailedError(failure))
        return self._noted(problem)

    def _problem(self, error: Exception, trace: Trace) -> Problem:
        """Return the answer to an error in the dispatch; an internal error is logged."""
        error = unwrapped(error)
        if isinstance(error, UserError):
            log_withheld(error, request_id=trace.request_id)
            return problem_of(error)
        if isinstance(error, TimeoutError):
            return Problem("timeout", "no answer came in time", 504)
        logger.error("request failed", exc_info=error, extra={"request_id": trace.request_id})
        return internal(trace.request_id)

    def _noted(self, problem: Problem) -> Problem:
        """Count a query that was refused or given up under load."""
        if problem.code in ("overloaded", "unavailable", "timeout"):
            self.metrics.shed(problem.code)
        return problem

    async def _details(
        self, snapshot: BundleSnapshot, entity: int, wanted: listings.EntityParts, trace: Trace
    ) -> Json:
        near = await self._neighbours(snapshot, entity, wanted.neighbours, trace)
        about = await asyncio.to_thread(listings.known_of, snapshot, self._workspace, entity, wanted)
        return {"bundle": snapshot.id, **entity_of(snapshot.vocabulary, entity), **about, "neighbours": near}

    async def _neighbours(self, snapshot: BundleSnapshot, entity: int, n: int, trace: Trace) -> list[Json]:
        if not n or NEIGHBOURS not in snapshot.routes:
            return []
        deadline = Deadline.within(self.settings.timeout_s)
        query = Query("neighbours", (entity,), top_k=n, deadline=deadline, deleted=snapshot.overlay.deleted)
        resolved = ResolvedQuery(NEIGHBOURS, "", query, deadline, False)
        trace.bundle, trace.queries = snapshot.id, 1
        (answer,) = await self._ask(snapshot, [resolved], trace)
        if isinstance(answer, Problem):
            raise ProblemError(answer)
        results = answer["results"]
        return [{"id": r["id"], "name": r["name"], "similarity": r["evidence"]["positive"]} for r in results]


def _generator(events: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Return a dispatch's stream as a generator: it must be closed when its consumer has gone."""
    return cast("AsyncGenerator[Any, None]", events)
