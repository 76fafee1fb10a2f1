"""Define the messages between the ingress and the stages. Knows no Ray, no HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine.query import Expansion


@dataclass(frozen=True)
class Failure:
    """The reason why an expansion could not be made.

    Args:
        code: the error's name in answers.
        message: for the caller.
        status: of HTTP.
        retry_after_s: when it may be worth trying again.
    """

    code: str
    message: str
    status: int
    retry_after_s: float | None = None


Outcome = Expansion | Failure


@dataclass(frozen=True)
class StageDone:
    """A stage has passed: what it took, in seconds, and how many candidates there are now."""

    stage: str
    seconds: float
    candidates: int


@dataclass(frozen=True)
class RoundDone:
    """A round of generation has passed: the entities that it brought, and how many there are now."""

    stage: str
    number: int
    new: tuple[int, ...]
    total: int


Progress = StageDone | RoundDone


@dataclass(frozen=True)
class StageStats:
    """The statistics of one batch of a stage.

    Args:
        stage: its name.
        seconds: of computing.
        queries: expansions in the batch.
        candidates: entities in their rankings afterwards, together.
        counts: what the stage counts besides: decode steps, cache hits and misses.
    """

    stage: str
    seconds: float
    queries: int
    candidates: int
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """Expansions of one caller for one deployment.

    Args:
        bundle: id of the bundle that must answer.
        chain: places of the stages to run, in order, in the deployment's list.
        expansions: what has been found so far.
        request_id: of the HTTP request, for the logs.
        trace: where its spans belong (:mod:`serve.telemetry.tracing`); empty where nothing is traced.
        overlay: the version of the overlay that must be in the answer, or a later one; 0: there is none.
    """

    bundle: str
    chain: tuple[int, ...]
    expansions: Sequence[Expansion]
    request_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)
    overlay: int = 0


@dataclass(frozen=True)
class Reply:
    """The outcomes of a task, in order, and what the batches took that this task began."""

    outcomes: Sequence[Outcome]
    stats: Sequence[StageStats] = ()


class Dispatch(Protocol):
    """A runner of a method's stages, wherever they are deployed.

    A query's ``deadline`` is always set here. When it comes, partial results are returned with ``degraded``
    naming what was left out, or a :class:`Failure` of status 504 if there is nothing.
    """

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        """Return an outcome for each expansion, in order.

        Raises:
            OverloadedError: too much waits already; says when to come again.
            UnavailableError: a stage does not answer.
        """

    def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        """Yield what happens to one expansion, and its outcome last. Raises what a call raises."""
