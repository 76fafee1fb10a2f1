"""Dispatch expansions through a route's deployments over Serve handles.

The ingress awaits one deployment after the other: responses passed on unawaited can hang, and only a
caller that holds the expansions can send them again when a replica dies, or answer with what there is
when a stage does not end in time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ray.exceptions import RayActorError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
    RequestCancelledError,
)
from ray.serve.handle import DeploymentHandle

from engine.query import Deadline, Expansion
from engine.stages.overlay import UNRANKED
from serve.errors import OverloadedError, UnavailableError
from serve.graph.admission import Admission
from serve.graph.plan import DeploymentCall, Plan
from serve.messages import Failure, Outcome, Progress, Reply, Task
from serve.telemetry.metrics import Metrics
from serve.telemetry.tracing import call_span, current_trace

logger = logging.getLogger("seedset.serve")

T = TypeVar("T")

PART = 64
"""Expansions of one call: larger requests are cut, so that replicas share them."""

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

REPLY_GRACE_S = 0.5
"""Seconds past the deadline in which a reply with partial results may still arrive."""

LOST = (RayActorError, ReplicaUnavailableError, DeploymentUnavailableError, RequestCancelledError)
"""A replica was lost, with or without our task. A query changes nothing, so it may run twice."""

MAX_DEATHS = 4
"""Replicas that may die while they run one task: a task that kills them must not kill them all."""


@dataclass
class _Tries:
    """The state of a call that is repeated."""

    until: Deadline
    pause: float = field(default_factory=lambda: FIRST_PAUSE_S)
    deaths: int = 0


class HandleDispatch:
    """A :class:`serve.messages.Dispatch` over Serve handles: sends tasks again where a replica dies.

    Args:
        plan: of the deployments.
        handles: of these, by name.
        admission: refuses what would wait too long.
        metrics: counts.
        overlay: returns the version of a bundle's overlay that answers must hold.
    """

    def __init__(
        self,
        plan: Plan,
        handles: Mapping[str, DeploymentHandle],
        admission: Admission,
        metrics: Metrics,
        overlay: Callable[[str], int] = lambda bundle: 0,
    ) -> None:
        self._plan, self._handles, self._overlay = plan, handles, overlay
        # A handle whose calls stream; its type cannot say so.
        self._streams: dict[str, Any] = {n: handle.options(stream=True) for n, handle in handles.items()}
        self._admission, self._metrics = admission, metrics

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        """Return an outcome for each expansion, in order (:class:`serve.messages.Dispatch`)."""
        with self._admission.admit(route, len(expansions)) as answered:
            parts = [expansions[start : start + PART] for start in range(0, len(expansions), PART)]
            done = await asyncio.gather(*(self._lead(route, bundle, part, request_id) for part in parts))
            outcomes = [outcome for part in done for outcome in part]
            _account(outcomes, answered)
            return outcomes

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        """Yield the progress of a query, and its outcome last (:class:`serve.messages.Dispatch`)."""
        with self._admission.admit(route, 1) as answered:
            outcome: Outcome = expansion
            for call in self._plan.calls(route, bool(expansion.query.unencoded)):
                # No span of the call: a stream may be closed in another context than it began in.
                version, trace = self._overlay(bundle), current_trace()
                task = Task(bundle, call[1], [expansion], request_id, trace, version)
                async with aclosing(self._follow(call, task)) as happening:
                    async for one in happening:
                        if isinstance(one, Reply):
                            self._observe(one)
                            outcome = _of_here(one.outcomes[0], expansion)
                        else:
                            yield one
                if isinstance(outcome, Failure):
                    break
                expansion = outcome
            _account([outcome], answered)
            yield outcome

    async def _lead(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        """Send expansions from deployment to deployment; one that failed goes no further."""
        outcomes: list[Outcome] = list(expansions)
        with_new = any(e.query.unencoded for e in expansions)
        for call in self._plan.calls(route, with_new):
            alive = {place: o for place, o in enumerate(outcomes) if isinstance(o, Expansion)}
            if not alive:
                break
            task = Task(bundle, call[1], list(alive.values()), request_id, overlay=self._overlay(bundle))
            reply = await self._ask(call, task)
            self._observe(reply)
            for (place, sent), outcome in zip(alive.items(), reply.outcomes, strict=True):
                outcomes[place] = _of_here(outcome, sent)
        return outcomes

    async def _ask(self, call: DeploymentCall, task: Task) -> Reply:
        """Return a deployment's reply, or the expansions without it when the time is over."""
        name, until = call[0], _until(task)
        remaining = max(until.remaining(), 0) + REPLY_GRACE_S
        with call_span(name, len(task.expansions)) as trace:
            sent = replace(task, trace=trace)
            try:
                async with asyncio.timeout(remaining):
                    return await self._again(name, until, lambda: self._handles[name].run.remote(sent))
            except TimeoutError:
                return self._without(call, task)

    async def _follow(self, call: DeploymentCall, task: Task) -> AsyncGenerator[Progress | Reply, None]:
        """Yield a deployment's progress and its reply; from the beginning where a replica is lost."""
        name, tries = call[0], _Tries(_until(task))
        while True:
            replies = self._streams[name].stream.remote(task)
            try:
                async with asyncio.timeout(max(tries.until.remaining(), 0) + REPLY_GRACE_S):
                    async for one in replies:
                        yield one
                return
            except TimeoutError:
                yield self._without(call, task)
                return
            except BackPressureError:
                raise _full(name) from None
            except LOST as error:
                await self._rest(name, tries, error)
            finally:
                replies.cancel()  # a consumer that leaves early must not let it go on

    async def _again(self, name: str, until: Deadline, call: Callable[[], Awaitable[T]]) -> T:
        """Return what a call returns; repeat it while replicas are lost and there is time.

        Raises:
            OverloadedError: the deployment's queue is full.
            UnavailableError: the time is over.
        """
        tries = _Tries(until)
        while True:
            try:
                return await call()
            except BackPressureError:
                raise _full(name) from None
            except LOST as error:
                await self._rest(name, tries, error)

    async def _rest(self, name: str, tries: _Tries, error: Exception) -> None:
        """Wait before the next try.

        Raises:
            UnavailableError: there is no time for one, or too many replicas died.
        """
        logger.warning("a replica of %s was lost: %s", name, type(error).__name__)
        self._metrics.retried(name)
        tries.deaths += isinstance(error, RayActorError)
        if tries.pause >= tries.until.remaining() or tries.deaths > MAX_DEATHS:
            raise UnavailableError(f"stage {name} does not answer; try later") from None
        await asyncio.sleep(tries.pause)
        tries.pause = min(2 * tries.pause, LONGEST_PAUSE_S)

    def _without(self, call: DeploymentCall, task: Task) -> Reply:
        """Return the expansions unchanged but for a note of the stages that they lack."""
        name, chain = call
        stages = [self._plan.names[name, place] for place in chain]
        outcomes: list[Outcome] = []
        for e in task.expansions:
            if not len(e.ranking):
                outcomes.append(Failure("timeout", f"no answer of {stages[0]} before the deadline", 504))
                continue
            notes = tuple(f"{stage}: left out, the deadline came first" for stage in stages)
            outcomes.append(replace(e, degraded=(*e.degraded, *notes)))
        return Reply(outcomes)

    def _observe(self, reply: Reply) -> None:
        for stats in reply.stats:
            self._metrics.observe(stats)


def _until(task: Task) -> Deadline:
    """Return the latest deadline of a task's queries."""
    return max(e.query.deadline or Deadline.within(0) for e in task.expansions)


def _of_here(outcome: Outcome, sent: Expansion) -> Outcome:
    """Return an outcome with the deadline that was sent: the one that comes back lacks the way's time."""
    if isinstance(outcome, Failure):
        return outcome
    return replace(outcome, query=replace(outcome.query, deadline=sent.query.deadline))


def _full(name: str) -> OverloadedError:
    return OverloadedError(f"stage {name} has too many requests waiting; try later")


def _account(outcomes: Sequence[Outcome], answered: Callable[[int, float], None]) -> None:
    """Report to admission what whole answers took; those that a deadline cut short are no evidence."""
    whole = [o for o in outcomes if isinstance(o, Expansion) and all(UNRANKED in d for d in o.degraded)]
    if whole:
        answered(len(whole), sum(sum(e.seconds.values()) for e in whole))
