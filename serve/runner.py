"""Runs opened stages over batches of tasks from many callers. Knows nothing of Ray or HTTP.

One caller's bad luck stays its own: a task whose time is over is not computed, and where a batch
fails its expansions are tried one by one.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.bundle import Bundle
from engine.errors import BundleError, UserError
from engine.query import Expansion, from_rows, to_rows
from engine.stages.base import Stage, Worker, timed
from serve.errors import kind_of

logger = logging.getLogger("seedset.serve")

Row = dict[str, Any]
"""An expansion as :func:`engine.query.to_rows` writes it, or a :func:`failure`."""


@dataclass(frozen=True)
class Task:
    """Expansions of one caller for one deployment.

    Args:
        chain: places of the stages to run, in order, in the deployment's list.
        rows: the expansions.
        deadline: wall-clock second after which nobody waits for the answer. Machines' clocks differ
            by less than the timeouts that this is made from.
    """

    chain: tuple[int, ...]
    rows: Sequence[Row]
    deadline: float


def failure(kind: str, message: str, status: int) -> Row:
    """Return the row of an expansion that could not be made."""
    return {"failed": {"type": kind, "message": message, "status": status}}


class StageRunner:
    """The workers of some stages of one bundle."""

    def __init__(self, bundle: Bundle, stages: Sequence[Stage], max_batch_size: int) -> None:
        self._workers = [_open(stage, bundle) for stage in stages]
        self._max_batch_size = max_batch_size

    def run(self, tasks: Sequence[Task]) -> list[list[Row]]:
        """Return each task's rows, in order; tasks with the same chain share batches."""
        answers: list[list[Row]] = [[{}] * len(task.rows) for task in tasks]
        places = [(task.chain, t, r) for t, task in enumerate(tasks) for r, _ in enumerate(task.rows)]
        places.sort(key=lambda place: place[0])
        for chain, group in itertools.groupby(places, key=lambda place: place[0]):
            members = [(t, r) for _, t, r in group]
            for start in range(0, len(members), self._max_batch_size):
                pairs = members[start : start + self._max_batch_size]
                for (t, r), row in zip(pairs, self._batch(chain, tasks, pairs), strict=True):
                    answers[t][r] = row
        return answers

    def _batch(
        self, chain: tuple[int, ...], tasks: Sequence[Task], pairs: Sequence[tuple[int, int]]
    ) -> list[Row]:
        now = time.time()
        late = failure("timeout", "the time for this query was over before its turn came", 504)
        alive = [(t, r) for t, r in pairs if tasks[t].deadline > now]
        done = dict(zip(alive, self._compute(chain, [tasks[t].rows[r] for t, r in alive]), strict=True))
        return [done.get(pair, late) for pair in pairs]

    def _compute(self, chain: tuple[int, ...], rows: list[Row]) -> list[Row]:
        """Run the chain on one batch; if it fails, on each expansion alone."""
        if not rows:
            return []
        try:
            return to_rows(self._chained(chain, from_rows(rows)))
        except Exception as error:
            if len(rows) == 1:
                return [_explain(error, rows[0])]
            return [self._compute(chain, [row])[0] for row in rows]

    def _chained(self, chain: tuple[int, ...], expansions: list[Expansion]) -> list[Expansion]:
        for place in chain:
            expansions = self._workers[place](expansions)
        return expansions


def _open(stage: Stage, bundle: Bundle) -> Worker:
    """Open a stage; one that the bundle lacks the files for answers each call with that error."""
    try:
        return timed(stage, stage.open(bundle))
    except BundleError as error:
        logger.exception("stage %s cannot be opened", stage)
        return _raiser(error)


def _raiser(error: BundleError) -> Worker:
    def run(expansions: list[Expansion]) -> list[Expansion]:
        raise error

    return run


def _explain(error: Exception, row: Row) -> Row:
    """Turn an error into a row: in words if it is the user's, with the log as witness if ours."""
    if isinstance(error, UserError):
        return failure(kind_of(error), str(error), error.status)
    logger.error("query %r failed in a stage", row["query_id"], exc_info=error)
    return failure("internal", f"query {row['query_id']!r} failed in a stage; see the log", 500)
