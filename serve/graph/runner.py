"""Run opened stages over the tasks of many callers, on one thread. Knows nothing of Ray or HTTP.

Each expansion waits before the stage that it needs next, so that callers whose routes differ share
batches where they meet. A batch is filled up to the stage's budget: tokens, candidates, queries. The
batch that will be done soonest goes first, less what its oldest expansion has waited: a look-up of a
millisecond does not stand behind a generation of seconds, and nothing waits for ever.

Callers are isolated: an expansion whose caller has gone is not computed, and where a batch fails its
expansions are tried one by one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from engine.answering.outcomes import TIMED_OUT, IterativeWorker
from engine.answering.outcomes import left_out as without_stage
from engine.errors import UserError
from engine.overlay.state import overlay_of
from engine.query import Deadline, Expansion
from engine.refusals import Refusal
from engine.stages.base import Stage, Worker, counts_of
from engine.stages.overlay import taken_by
from engine.storage.bundle import Bundle
from serve.errors import RetryLaterError, code_of, unwrapped
from serve.messages import Failure, Outcome, Progress, Reply, RoundDone, StageDone, StageStats, Task
from serve.overlay.follower import OverlayFollower
from serve.telemetry.logs import log_event, log_withheld
from serve.telemetry.tracing import stage_spans

logger = logging.getLogger("seedset.serve")

Report = Callable[[Progress], None]

SHORT_S = 0.1
"""Batches that are expected to take less are computed between the rounds of a generation."""

WEIGHT = 0.3
"""Weight of the newest batch in the moving average of a stage's time."""

DECAY = 0.8
"""Factor on an expected time each time that it kept a stage from starting."""


@dataclass(frozen=True, eq=False)
class OpenedBundle:
    """The stages of one bundle, opened; and what brings its overlay up to a version, if it has one."""

    bundle: Bundle
    stages: Sequence[Stage]
    workers: Sequence[Worker]
    follower: OverlayFollower | None = None

    @classmethod
    def open(
        cls, bundle: Bundle, stages: Sequence[Stage], follower: OverlayFollower | None = None
    ) -> OpenedBundle:
        """Open every stage.

        Raises:
            BundleError: the bundle lacks what one needs.
        """
        return cls(bundle, stages, [stage.open(bundle) for stage in stages], follower)


@dataclass(eq=False)
class Job:
    """A task in progress.

    Args:
        task: what was asked.
        opened: the bundle that answers.
        report: called with the progress, on the runner's thread.
    """

    task: Task
    opened: OpenedBundle
    report: Report | None = None
    outcomes: list[Outcome] = field(init=False)
    step: list[int] = field(init=False)
    """Stages of the chain that each expansion has passed."""
    stats: list[StageStats] = field(init=False, default_factory=list)
    done: Future[None] = field(init=False, default_factory=Future)
    dropped: bool = field(init=False, default=False)
    """True once no caller waits for it."""

    def __post_init__(self) -> None:
        self.outcomes = list(self.task.expansions)
        self.step = [0] * len(self.outcomes)

    @property
    def deadline(self) -> Deadline | None:
        """When the last of its queries wants its answer."""
        deadlines = [e.query.deadline for e in self.task.expansions]
        return None if None in deadlines else max(d for d in deadlines if d is not None)

    def reply(self) -> Reply:
        """Return the outcomes as they are now; what is not ended says what was left out."""
        found = []
        for outcome, step in zip(list(self.outcomes), list(self.step), strict=True):
            for place in self.task.chain[step:]:
                outcome = left_out(outcome, self.opened.stages[place])
            found.append(outcome)
        return Reply(found, tuple(self.stats))


def left_out(outcome: Outcome, stage: Stage) -> Outcome:
    """Return an expansion without a stage, or a failure where there is nothing without it."""
    if isinstance(outcome, Failure):
        return outcome
    found = without_stage(outcome, stage.name)
    return Failure("timeout", found.detail, TIMED_OUT) if isinstance(found, Refusal) else found


@dataclass(eq=False)
class _Item:
    """One expansion of a job before its next stage."""

    job: Job
    index: int
    since: float

    @property
    def expansion(self) -> Expansion:
        outcome = self.job.outcomes[self.index]
        assert isinstance(outcome, Expansion)
        return outcome

    @property
    def place(self) -> int:
        return self.job.task.chain[self.job.step[self.index]]


_Key = tuple[OpenedBundle, int]


class StageRunner:
    """One thread that computes; :meth:`submit` may be called from any other.

    Args:
        stages: of the deployment.
        budgets: cost of a batch of each, in the stage's own unit.
        wait_s: time that an expansion waits for others where a batch is not full.
    """

    def __init__(self, stages: Sequence[Stage], budgets: Sequence[int], wait_s: float = 0) -> None:
        self._stages, self._budgets, self._wait_s = stages, budgets, wait_s
        self._arrivals: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ready: dict[_Key, deque[_Item]] = {}
        self._seconds_a_unit = [0.0] * len(stages)
        self._thread = threading.Thread(target=self._serve, name="stages", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Put a job in line; its ``done`` is set when every expansion has its outcome."""
        self._arrivals.put(job)

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End the thread after what is in line."""
        self._arrivals.put(None)
        self._thread.join()

    def _serve(self) -> None:
        going = True
        while going or self._ready:
            going = self._collect(block=going and not self._ready) and going
            if going and self._ready and (pause := self._pause()) > 0:
                going = self._collect(block=True, timeout=pause)
            elif self._ready:
                self._run(*self._next_batch())

    def _collect(self, block: bool, timeout: float | None = None) -> bool:
        """Queue arrived jobs before their first stage; return False after :meth:`close`."""
        try:
            while True:
                job = self._arrivals.get(block, timeout)
                if job is None:
                    return False
                now = time.monotonic()
                for index in range(len(job.outcomes)):
                    self._queue(_Item(job, index, now))
                block = False
        except queue.Empty:
            return True

    def _queue(self, item: _Item) -> None:
        """Queue an expansion before its next stage, or note that it has none."""
        job = item.job
        failed = isinstance(job.outcomes[item.index], Failure)
        if failed or job.step[item.index] == len(job.task.chain):
            job.step[item.index] = len(job.task.chain)
            if all(step == len(job.task.chain) for step in job.step) and not job.done.done():
                job.done.set_result(None)
            return
        self._ready.setdefault((job.opened, item.place), deque()).append(item)

    def _pause(self) -> float:
        """Return the seconds that a batch may still wait to fill."""
        if not self._wait_s:
            return 0
        oldest = min(items[0].since for items in self._ready.values())
        full = any(self._cost(key) >= self._budgets[key[1]] for key in self._ready)
        return 0 if full else oldest + self._wait_s - time.monotonic()

    def _cost(self, key: _Key) -> int:
        stage, budget, total = self._stages[key[1]], self._budgets[key[1]], 0
        for item in self._ready[key]:
            total += stage.cost(item.expansion)
            if total >= budget:
                return budget
        return total

    def _next_batch(self, short: bool = False) -> tuple[_Key, list[_Item]]:
        """Take the most urgent batch, or of the ``short`` ones that grow by no rounds; it may be empty."""
        now = time.monotonic()
        expected = {key: self._seconds_a_unit[key[1]] * self._cost(key) for key in self._ready}
        within = [key for key in expected if not short or self._is_short(key, expected[key])]
        if not within:
            return next(iter(self._ready)), []
        key = min(within, key=lambda k: expected[k] - (now - self._ready[k][0].since))
        waiting, stage = self._ready[key], self._stages[key[1]]
        batch = [waiting.popleft()]
        room = self._budgets[key[1]] - stage.cost(batch[0].expansion)
        while waiting and (cost := stage.cost(waiting[0].expansion)) <= room:
            batch.append(waiting.popleft())
            room -= cost
        if not waiting:
            del self._ready[key]
        return key, batch

    def _is_short(self, key: _Key, seconds: float) -> bool:
        opened, place = key
        return seconds < SHORT_S and not isinstance(opened.workers[place], IterativeWorker)

    def _run(self, key: _Key, items: list[_Item]) -> None:
        """Compute a stage on a batch and put each expansion before its next stage."""
        opened, place = key
        stage, worker = opened.stages[place], opened.workers[place]
        wanted = [item for item in items if not item.job.dropped]
        timely = [item for item in wanted if self._in_time(item, stage, worker)]
        late = set(wanted) - set(timely)
        if timely:
            excluded = [item.expansion.query.exclude for item in timely]
            for item in timely:
                item.job.outcomes[item.index] = taken_by(stage, item.expansion, overlay_of(opened.bundle))
            before, started = dict(counts_of(worker)), time.perf_counter()
            found = list(map(as_asked, self._compute(worker, stage, timely), excluded))
            seconds = time.perf_counter() - started
            counts = {name: n - before.get(name, 0) for name, n in counts_of(worker).items()}
            self._note(place, timely, found, seconds, counts)
        for item in items:
            item.job.step[item.index] += 1
            if item in late:
                item.job.outcomes[item.index] = left_out(item.expansion, stage)
            elif item.job.dropped:
                item.job.step[item.index] = len(item.job.task.chain)
            self._queue(item)

    def _in_time(self, item: _Item, stage: Stage, worker: Worker) -> bool:
        """Return whether a stage may start. A recall stage may as long as there is time at all."""
        deadline = item.expansion.query.deadline
        if deadline is None:
            return True
        alone = self._seconds_a_unit[item.place] * stage.cost(item.expansion)
        bounded = isinstance(worker, IterativeWorker) or not len(item.expansion.ranking)
        remaining = deadline.remaining()
        if bounded or alone < remaining:
            return remaining > 0
        # Else one slow batch, the first after a start perhaps, would keep the stage out for ever.
        self._seconds_a_unit[item.place] *= DECAY
        return False

    def _compute(self, worker: Worker, stage: Stage, items: list[_Item]) -> list[Outcome]:
        """Run a stage on one batch; if it fails, on each expansion alone."""
        expansions = [item.expansion for item in items]
        try:
            grower: object = worker
            if isinstance(grower, IterativeWorker):
                return [*self._grow(grower, stage, items)]
            return [*worker(expansions)]
        except Exception as error:
            if len(items) == 1:
                return [_explain(error, items[0].job.task.request_id)]
            return [self._compute(worker, stage, [item])[0] for item in items]

    def _grow(self, worker: IterativeWorker, stage: Stage, items: list[_Item]) -> list[Outcome]:
        """Run a generation round by round, report each, and run short batches between rounds."""
        expansions = [item.expansion for item in items]
        # Callers name their queries as they like; rounds are matched by a number.
        numbered = [replace(e, query=replace(e.query, id=str(number))) for number, e in enumerate(expansions)]
        growing = worker.start(numbered)
        for one in worker.rounds(growing):
            if one is not None and (report := items[int(one.query_id)].job.report):
                report(RoundDone(stage.name, one.number, tuple(int(i) for i in one.new), one.total))
            self._let_through()
        return [self._answer(worker, item, grown) for item, grown in zip(items, growing, strict=True)]

    def _answer(self, worker: IterativeWorker, item: _Item, grown: Any) -> Outcome:
        """Return what has grown, or why the query was refused: the others of the batch have their lists."""
        try:
            return worker.answer(item.expansion, grown)
        except UserError as error:
            return _explain(error, item.job.task.request_id)

    def _let_through(self) -> None:
        going = self._collect(block=False)
        while self._ready:
            key, batch = self._next_batch(short=True)
            if not batch:
                break
            self._run(key, batch)
        if not going:
            self._arrivals.put(None)

    def _note(
        self,
        place: int,
        items: list[_Item],
        found: list[Outcome],
        seconds: float,
        counts: dict[str, int],
    ) -> None:
        """Record outcomes and what they took."""
        stage = self._stages[place]
        cost = sum(stage.cost(item.expansion) for item in items)
        known = self._seconds_a_unit[place]
        newest = seconds / cost
        self._seconds_a_unit[place] = newest if not known else known + WEIGHT * (newest - known)
        candidates = 0
        for item, outcome in zip(items, found, strict=True):
            if isinstance(outcome, Expansion):
                candidates += len(outcome.ranking)
                took = {**outcome.seconds, stage.name: seconds / len(items)}
                outcome = replace(outcome, seconds=took)
                if item.job.report:
                    item.job.report(StageDone(stage.name, seconds, len(outcome.ranking)))
            item.job.outcomes[item.index] = outcome
        items[0].job.stats.append(StageStats(stage.name, seconds, len(items), candidates, counts))
        requests = list(dict.fromkeys(item.job.task.request_id for item in items))
        waited = max(time.monotonic() - seconds - min(item.since for item in items), 0)
        traces = [item.job.task.trace for item in items]
        about = {**counts, "queries": len(items), "candidates": candidates}
        stage_spans(stage.name, traces, seconds, waited, **about)
        log_event(
            "stage", stage=stage.name, requests=requests, queries=len(items), ms=round(1e3 * seconds, 2)
        )


def as_asked(outcome: Outcome, exclude: tuple[int, ...]) -> Outcome:
    """Return an outcome whose query excludes what it was asked to (:func:`taken_by` leaves some out)."""
    if isinstance(outcome, Failure) or outcome.query.exclude == exclude:
        return outcome
    return replace(outcome, query=replace(outcome.query, exclude=exclude))


def _explain(error: Exception, request_id: str) -> Failure:
    """Return an error as an outcome: a user's with its message, any other, which is logged, as internal."""
    error = unwrapped(error)
    if isinstance(error, UserError):
        retry_after_s = error.retry_after_s if isinstance(error, RetryLaterError) else None
        log_withheld(error, request_id=request_id)
        return Failure(code_of(error), error.public_message, error.status, retry_after_s)
    logger.error("a query failed in a stage", exc_info=error, extra={"request_id": request_id})
    return Failure("internal", "the query failed in a stage; see the log", 500)
