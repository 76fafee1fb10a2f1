"""The runner: order, shared batches, budgets, deadlines, progress, one failure staying alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from engine.errors import QueryError
from engine.query import Deadline, Expansion, Query, Ranking
from engine.stages.base import Stage, Worker
from engine.storage.bundle import Bundle
from serve.graph.runner import Job, OpenedBundle, StageRunner
from serve.messages import Failure, Outcome, Progress, Reply, RoundDone, StageDone, Task

BEGUN, GO_ON = threading.Event(), threading.Event()
"""A stage is at the query "held", or the one of that name "held-name", and may end it."""


class Step(Stage):
    """Notes its name and batch size, and ranks one entity; fails on queries that say so."""

    label: str
    budget_of_test: int = 4

    def cost(self, expansion: Expansion) -> int:
        return 2 if expansion.query.id.startswith("double") else 1

    def open(self, bundle: Bundle) -> Worker:
        def run(expansions: list[Expansion]) -> list[Expansion]:
            done = []
            for e in expansions:
                if e.query.id == "poison":
                    raise ZeroDivisionError("secret")
                if e.query.id == "refused":
                    raise QueryError("not this one")
                if e.query.id in ("held", f"held-{self.label}"):
                    BEGUN.set()
                    assert GO_ON.wait(10)
                if e.query.id.startswith("slow"):
                    time.sleep(0.2)
                ranking = Ranking(np.array([7], np.int32), np.array([1], np.float32))
                done.append(
                    replace(e, ranking=ranking, degraded=(*e.degraded, f"{self.label}{len(expansions)}"))
                )
            return done

        return run


class Growth(Stage):
    """Grows by rounds of 20 ms: as many as the query's ``top_k``."""

    def open(self, bundle: Bundle) -> Worker:
        return GrowthWorker()


@dataclass
class Growing:
    query: Query
    rounds: int = 0


@dataclass(frozen=True)
class Round:
    query_id: str
    number: int
    new: Sequence[int]
    total: int


class GrowthWorker:
    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        raise AssertionError("rounds are run one by one")

    def start(self, expansions: Sequence[Expansion]) -> list[Growing]:
        return [Growing(e.query) for e in expansions]

    def rounds(self, growing: Sequence[Growing]) -> Iterator[Round]:
        for number in range(1, max(g.query.top_k for g in growing) + 1):
            time.sleep(0.02)
            for one in growing:
                if number <= one.query.top_k:
                    one.rounds = number
                    yield Round(one.query.id, number, [10 + number], number)

    def answer(self, expansion: Expansion, grown: Growing) -> Expansion:
        ids = np.arange(11, 11 + grown.rounds, dtype=np.int32)
        return replace(expansion, ranking=Ranking(ids, np.ones(len(ids), np.float32)))


STAGES: list[Stage] = [Step(label="a"), Step(label="b"), Growth()]


@pytest.fixture
def opened(bundle: Bundle) -> OpenedBundle:
    return OpenedBundle.open(bundle, STAGES)


@pytest.fixture
def runner() -> Iterator[StageRunner]:
    made = StageRunner(STAGES, [4, 4, 4])
    yield made
    made.close()


def expansion(id: str, top_k: int = 5, deadline: Deadline | None = None) -> Expansion:
    return Expansion(Query(id, (1,), top_k=top_k, deadline=deadline))


@pytest.fixture
def job(opened: OpenedBundle) -> Callable[..., Job]:
    def make(
        chain: tuple[int, ...], *given: str | Expansion, report: Callable[[Progress], None] | None = None
    ) -> Job:
        expansions = [expansion(one) if isinstance(one, str) else one for one in given]
        return Job(Task(opened.bundle.id, chain, expansions, "r"), opened, report)

    return make


MakeJob = Callable[..., Job]


def together(runner: StageRunner, *jobs: Job) -> list[Reply]:
    """Submit all while the runner is busy, so that it finds them in line together."""
    BEGUN.clear()
    GO_ON.clear()
    runner.submit(Job(Task(jobs[0].task.bundle, (0,), [expansion("held")]), jobs[0].opened))
    assert BEGUN.wait(10)
    for one in jobs:
        runner.submit(one)
    GO_ON.set()
    for one in jobs:
        one.done.result(10)
    return [one.reply() for one in jobs]


def done(runner: StageRunner, one: Job) -> None:
    """Submit a job that finds nobody in line, and wait for it."""
    runner.submit(one)
    one.done.result(10)


def notes(outcome: Outcome) -> tuple[str, ...]:
    assert isinstance(outcome, Expansion)
    return outcome.degraded


def test_tasks_share_batches_where_they_meet_and_keep_their_order(runner: StageRunner, job: MakeJob) -> None:
    replies = together(runner, job((0, 1), "1", "2"), job((1,), "3"), job((0, 1), "4", "5", "6"))
    ids = [[o.query.id for o in reply.outcomes if isinstance(o, Expansion)] for reply in replies]
    assert ids == [["1", "2"], ["3"], ["4", "5", "6"]]
    # Five expansions want "a", of which a batch holds four; six want "b".
    assert sorted(n[0] for reply in (replies[0], replies[2]) for n in map(notes, reply.outcomes)) == [
        "a1",
        "a4",
        "a4",
        "a4",
        "a4",
    ]
    in_b = [n[-1] for reply in replies for n in map(notes, reply.outcomes)]
    assert in_b.count("b4") == 4
    assert all(set(o.seconds) >= {"Step"} for r in replies for o in r.outcomes if isinstance(o, Expansion))


def test_a_batch_is_filled_by_cost_not_by_count(runner: StageRunner, job: MakeJob) -> None:
    (reply,) = together(runner, job((0,), "double 1", "double 2", "3", "double 4", "5"))
    assert [notes(o)[0] for o in reply.outcomes] == ["a2", "a2", "a3", "a3", "a3"][:2] + ["a3"] * 3


def test_stats_count_each_batch_once(runner: StageRunner, job: MakeJob) -> None:
    replies = together(runner, job((0,), "1"), job((0,), "2"), job((0,), "3"))
    stats = [one for reply in replies for one in reply.stats]
    assert [(s.stage, s.queries, s.candidates) for s in stats] == [("Step", 3, 3)]


def test_a_query_that_breaks_its_batch_breaks_alone(
    runner: StageRunner, job: MakeJob, caplog: pytest.LogCaptureFixture
) -> None:
    (reply,) = together(runner, job((0,), "1", "poison", "refused", "2"))
    first, poison, refused, last = reply.outcomes
    assert notes(first) == notes(last) == ("a1",)
    assert isinstance(poison, Failure)
    assert (poison.status, "secret" in poison.message) == (500, False)
    assert "secret" in caplog.text
    assert refused == Failure("query", "not this one", 422)


def test_a_query_whose_time_is_over_is_not_computed(runner: StageRunner, job: MakeJob) -> None:
    past = Deadline.within(-1)
    (reply,) = together(runner, job((0,), expansion("1", deadline=past), "2"))
    late, fine = reply.outcomes
    assert isinstance(late, Failure)
    assert (late.code, late.status) == ("timeout", 504)
    assert notes(fine) == ("a1",)


def test_a_stage_for_which_there_is_no_time_is_left_out_by_name(runner: StageRunner, job: MakeJob) -> None:
    late = replace(expansion("1"), ranking=Ranking(np.array([3], np.int32), np.array([1], np.float32)))
    late = replace(late, query=replace(late.query, deadline=Deadline.within(-1)))
    (reply,) = together(runner, job((1,), late))
    (outcome,) = reply.outcomes
    assert isinstance(outcome, Expansion)
    assert outcome.ranking.ids.tolist() == [3]
    assert notes(outcome) == ("Step: left out, the deadline came first",)


def test_a_stage_known_to_take_longer_than_there_is_time_is_not_begun(
    runner: StageRunner, job: MakeJob
) -> None:
    done(runner, job((0,), "slow"))  # 0.2 s: so much is known now
    found = replace(expansion("2"), ranking=Ranking(np.array([3], np.int32), np.array([1], np.float32)))
    found = replace(found, query=replace(found.query, deadline=Deadline.within(0.15)))
    one = job((0,), found)
    runner.submit(one)
    one.done.result(5)
    assert notes(one.reply().outcomes[0]) == ("Step: left out, the deadline came first",)


def test_an_estimate_that_keeps_a_stage_from_being_tried_fades(runner: StageRunner, job: MakeJob) -> None:
    done(runner, job((0,), "slow"))

    def tried(id: str) -> bool:
        found = replace(
            expansion(id, deadline=Deadline.within(0.15)),
            ranking=Ranking(np.array([3], np.int32), np.array([1], np.float32)),
        )
        one = job((0,), found)
        runner.submit(one)
        one.done.result(1)
        return notes(one.reply().outcomes[0]) == ("a1",)

    assert not tried("0")
    assert any(tried(f"{i}") for i in range(20))


def test_what_there_is_can_be_had_before_the_end(runner: StageRunner, job: MakeJob) -> None:
    BEGUN.clear()
    GO_ON.clear()
    one = job((0, 1, 1), "held-b")
    runner.submit(one)
    assert BEGUN.wait(10)  # the first stage has passed, the second is at it
    (outcome,) = one.reply().outcomes
    assert notes(outcome) == ("a1", *["Step: left out, the deadline came first"] * 2)
    GO_ON.set()
    one.done.result(5)
    assert notes(one.reply().outcomes[0]) == ("a1", "b1", "b1")


def test_a_job_that_nobody_waits_for_is_dropped(runner: StageRunner, job: MakeJob) -> None:
    busy, dropped = job((0,), "slow"), job((0, 1), "1")
    runner.submit(busy)
    runner.submit(dropped)
    dropped.dropped = True
    dropped.done.result(5)
    assert dropped.reply().stats == ()


def test_progress_names_stages_and_rounds_of_ones_own_query(runner: StageRunner, job: MakeJob) -> None:
    mine: list[Progress] = []
    theirs: list[Progress] = []
    # Both callers call their query "q".
    together(
        runner,
        job((2,), expansion("q", top_k=2), report=mine.append),
        job((2, 0), expansion("q", top_k=3), report=theirs.append),
    )
    assert mine[:2] == [RoundDone("Growth", 1, (11,), 1), RoundDone("Growth", 2, (12,), 2)]
    assert [type(one) for one in theirs] == [RoundDone] * 3 + [StageDone] * 2
    assert [(one.stage, one.candidates) for one in theirs if isinstance(one, StageDone)] == [
        ("Growth", 3),
        ("Step", 1),
    ]


def test_a_short_query_does_not_wait_for_a_long_generation(runner: StageRunner, job: MakeJob) -> None:
    together(runner, job((1,), "1"))  # so that the runner knows how short it is
    long, short = job((2,), expansion("long", top_k=40)), job((1,), "short")
    runner.submit(long)
    time.sleep(0.05)
    runner.submit(short)
    short.done.result(5)
    assert not long.done.done()
    long.done.result(5)
    (found,) = long.reply().outcomes
    assert isinstance(found, Expansion)
    assert len(found.ranking) == 40


def test_a_generation_in_line_keeps_no_short_query_behind_it(runner: StageRunner, job: MakeJob) -> None:
    together(runner, job((1,), "1"))
    long, next_long = (job((2,), expansion(id, top_k=20)) for id in ("long", "next long"))
    runner.submit(long)
    time.sleep(0.05)
    runner.submit(next_long)  # how long it takes is not known yet
    short = job((1,), "short")
    runner.submit(short)
    short.done.result(5)
    assert not long.done.done()
    for one in (long, next_long):
        one.done.result(5)


def test_waiting_for_company_fills_batches(opened: OpenedBundle, job: MakeJob) -> None:
    runner = StageRunner(STAGES, [4, 4, 4], wait_s=0.2)
    jobs = [job((0,), str(i)) for i in range(3)]
    for one in jobs:
        runner.submit(one)
        time.sleep(0.02)
    for one in jobs:
        one.done.result(5)
    assert [notes(one.reply().outcomes[0]) for one in jobs] == [("a3",)] * 3
    runner.close()


def test_many_threads_may_submit_and_nothing_is_lost(runner: StageRunner, job: MakeJob) -> None:
    jobs = [job((0, 1), f"{i}", f"{i}'") for i in range(200)]

    def submit(part: Sequence[Job]) -> None:
        for one in part:
            runner.submit(one)

    threads = [threading.Thread(target=submit, args=(part,)) for part in (jobs[:100], jobs[100:])]
    for thread in threads:
        thread.start()
    for place, one in enumerate(jobs):
        one.done.result(10)
        answered = [o.query.id if isinstance(o, Expansion) else o for o in one.reply().outcomes]
        assert answered == [f"{place}", f"{place}'"]
