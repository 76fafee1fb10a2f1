"""Run a stage on queries so that what one of them cannot have costs no other its answer.

Both who serve and who expand tables say by this what became of a query: its expansion, or why it has none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from engine.errors import QueryError, UserError
from engine.query import Expansion
from engine.refusals import Code, Refusal
from engine.stages.base import Stage, Worker, without

logger = logging.getLogger(__name__)

GRACE_S = 0.1
"""Seconds past its deadline in which a stage may still return what it has."""

TIMED_OUT = 504
"""Status of the errors that a query's deadline makes."""

LEFT_OUT = "left out, the deadline came first"

Outcome = Expansion | Refusal


@runtime_checkable
class IterativeWorker(Protocol):
    """A worker whose lists grow by rounds (:class:`engine.stages.generate.Generator`)."""

    def start(self, expansions: Sequence[Expansion]) -> list[Any]:
        """Return the state of each expansion before its first round."""

    def rounds(self, growing: Sequence[Any]) -> Iterator[Any]:
        """Yield every round of every list, and None while it waits, so that other batches get through."""

    def answer(self, expansion: Expansion, grown: Any) -> Expansion:
        """Return the expansion with its list as it is now."""


def left_out(expansion: Expansion, stage: str, why: str = LEFT_OUT) -> Outcome:
    """Return an expansion without a stage, or why there is nothing where no stage has found anything yet."""
    if not len(expansion.ranking):
        return Refusal(Code.TIMEOUT, f"the deadline came before {stage} had found anything")
    return without(expansion, stage, why)


def answered(stage: Stage, worker: Worker, expansions: Sequence[Expansion]) -> list[Outcome]:
    """Return the outcome of each query after a stage, in order, with the seconds that it took.

    Queries without a deadline go together. One with a deadline goes alone, as what others take would be
    counted as its own; of a stage that ends after the deadline the result is left out, as over HTTP.

    Args:
        stage: of the worker.
        worker: of the stage.
        expansions: of queries whose deadlines run.

    Raises:
        UserError: what is wrong is no query but a file, an address or a setting, for all of them.
    """
    together = [e for e in expansions if e.query.deadline is None]
    batch = iter(_timed(stage, worker, together) if together else [])
    return [next(batch) if e.query.deadline is None else _in_time(stage, worker, e) for e in expansions]


def _in_time(stage: Stage, worker: Worker, expansion: Expansion) -> Outcome:
    deadline = expansion.query.deadline
    assert deadline is not None
    if deadline.remaining() <= 0:
        return left_out(expansion, stage.name)
    (outcome,) = _timed(stage, worker, [expansion])
    grower: object = worker
    if deadline.remaining() < -GRACE_S and not isinstance(grower, IterativeWorker):
        return left_out(expansion, stage.name)
    return outcome


def _timed(stage: Stage, worker: Worker, expansions: list[Expansion]) -> list[Outcome]:
    started = time.perf_counter()
    outcomes = _outcomes(stage, worker, expansions)
    share = (time.perf_counter() - started) / len(expansions)
    return [
        o if isinstance(o, Refusal) else replace(o, seconds={**o.seconds, stage.name: share})
        for o in outcomes
    ]


def _outcomes(stage: Stage, worker: Worker, expansions: list[Expansion]) -> list[Outcome]:
    """Return the outcomes of a batch; where it fails, of its halves, down to the query at fault."""
    try:
        grower: object = worker
        if isinstance(grower, IterativeWorker):
            growing = grower.start(expansions)
            for _ in grower.rounds(growing):
                pass
            return [_grown(grower, e, one) for e, one in zip(expansions, growing, strict=True)]
        return [*worker(expansions)]
    except Exception as error:
        if stage.batch_dependent or not _of_one_query(error):
            raise
        if len(expansions) == 1:
            return [_refusal(stage, error)]
    half = len(expansions) // 2
    return [*_outcomes(stage, worker, expansions[:half]), *_outcomes(stage, worker, expansions[half:])]


def _grown(worker: IterativeWorker, expansion: Expansion, grown: Any) -> Outcome:
    try:
        return worker.answer(expansion, grown)
    except QueryError as error:
        return Refusal(Code.QUERY_INVALID, str(error))


def _of_one_query(error: Exception) -> bool:
    """Return whether an error may be of one query alone; a file or an endpoint is missing to all."""
    return not isinstance(error, UserError) or isinstance(error, QueryError) or error.status == TIMED_OUT


def _refusal(stage: Stage, error: Exception) -> Refusal:
    if isinstance(error, UserError):
        code = Code.TIMEOUT if error.status == TIMED_OUT else Code.QUERY_INVALID
        return Refusal(code, str(error))
    logger.error("a query failed in the stage %s", stage.name, exc_info=error)
    return Refusal(Code.INTERNAL, f"{stage.name}: {type(error).__name__}: {error}")
