"""The way through the deployments: order, retries where a replica dies, deadlines, refusals. No Ray runs."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from engine.errors import UserError
from engine.query import Deadline, Expansion, NewEntity, Query, Ranking
from serve.errors import OverloadedError, UnavailableError
from serve.graph import dispatch as module
from serve.graph.admission import Admission
from serve.graph.dispatch import HandleDispatch
from serve.graph.plan import Plan, StageRef
from serve.messages import Failure, Outcome, Progress, Reply, StageDone, StageStats, Task
from serve.telemetry.metrics import Metrics

FOUND = Ranking(np.array([7], np.int32), np.array([1], np.float32))


class FakeHandle:
    """A deployment's handle; ``answer`` says what each call gives, counted from 1."""

    def __init__(self, answer: Callable[[int, Task], Any], delay: float = 0) -> None:
        self.calls: list[Task] = []
        self.cancelled = 0
        self._answer, self._delay = answer, delay
        self.run = self

    async def remote(self, task: Task) -> Any:
        self.calls.append(task)
        await asyncio.sleep(self._delay)
        answer = self._answer(len(self.calls), task)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def options(self, stream: bool) -> Any:
        return FakeStream(self)


class FakeStream:
    def __init__(self, handle: FakeHandle) -> None:
        self._handle = handle
        self.stream = self

    def remote(self, task: Task) -> FakeReplies:
        return FakeReplies(self._handle, task)


class FakeReplies:
    def __init__(self, handle: FakeHandle, task: Task) -> None:
        self._handle, self._task = handle, task

    async def __aiter__(self) -> AsyncIterator[Progress | Reply]:
        yield StageDone("A", 0.1, 1)
        yield await self._handle.remote(self._task)

    def cancel(self) -> None:
        self._handle.cancelled += 1


def found(n: int, task: Task) -> Reply:
    """Each expansion gets a ranking and a note of the stages passed."""
    notes = tuple(f"stage {place}" for place in task.chain)
    return Reply(
        [
            replace(e, ranking=FOUND, seconds={**e.seconds, **dict.fromkeys(notes, 0.5)})
            for e in task.expansions
        ],
        (StageStats("A", 0.5, len(task.expansions), 1),),
    )


def expansion(id: str = "q", seconds: float = 60, new: tuple[NewEntity, ...] = ()) -> Expansion:
    return Expansion(Query(id, (1,), new=new, deadline=Deadline.within(seconds)))


ROUTE: tuple[StageRef, ...] = (("A", 0), ("A", 2), ("B", 0))


def made(handles: Mapping[str, FakeHandle], encode_new: StageRef | None = ("A", 1)) -> HandleDispatch:
    names = {("A", 0): "Retrieve", ("A", 1): "EncodeNewEntities", ("A", 2): "Filter", ("B", 0): "Generate"}
    plan = Plan((), {"m": ROUTE}, encode_new, names)
    return HandleDispatch(plan, handles, Admission(100, 5), Metrics())  # type: ignore[arg-type]


def ask(dispatch: HandleDispatch, expansions: Sequence[Expansion]) -> list[Outcome]:
    return asyncio.run(dispatch("m", "bundle", expansions, "r"))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "REPLY_GRACE_S", 0.05)


def test_stages_of_one_deployment_are_one_hop_and_all_name_the_bundle() -> None:
    a, b = FakeHandle(found), FakeHandle(found)
    (outcome,) = ask(made({"A": a, "B": b}), [expansion()])
    assert isinstance(outcome, Expansion)
    assert [(t.chain, t.bundle, t.request_id) for t in a.calls + b.calls] == [
        ((0, 2), "bundle", "r"),
        ((0,), "bundle", "r"),
    ]
    assert len(outcome.ranking) == 1


def test_a_machine_with_another_clock_does_not_end_a_query_nor_lengthen_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall, monotonic = time.time, time.monotonic
    remaining: list[float] = []

    def elsewhere(n: int, task: Task) -> Reply:
        sent = pickle.dumps(task)
        with monkeypatch.context() as there:
            there.setattr(time, "time", lambda: wall() + 2)
            there.setattr(time, "monotonic", lambda: monotonic() + 1e6)
            got = pickle.loads(sent)
            remaining.extend(e.query.deadline.remaining() for e in got.expansions)
            sent = pickle.dumps(found(n, got))
        time.sleep(0.05)  # the way back
        reply: Reply = pickle.loads(sent)
        return reply

    asked = expansion(seconds=1)
    (outcome,) = ask(made({"A": FakeHandle(elsewhere), "B": FakeHandle(elsewhere)}), [asked])
    assert isinstance(outcome, Expansion)
    assert outcome.degraded == ()
    assert outcome.query.deadline == asked.query.deadline
    assert 0.9 < remaining[0] <= 1
    assert remaining[1] <= remaining[0] - 0.05


def test_new_entities_are_described_first() -> None:
    a, b = FakeHandle(found), FakeHandle(found)
    new = (NewEntity("n", ("n is.",)),)
    ask(made({"A": a, "B": b}), [expansion(new=new)])
    assert a.calls[0].chain == (1, 0, 2)
    with pytest.raises(UserError, match="no encoder"):
        ask(made({"A": a, "B": b}, encode_new=None), [expansion(new=new)])


def test_what_was_lost_with_a_replica_is_sent_again() -> None:
    a = FakeHandle(lambda n, task: ActorDiedError() if n < 4 else found(n, task))
    dispatch = made({"A": a, "B": FakeHandle(found)})
    (outcome,) = ask(dispatch, [expansion()])
    assert isinstance(outcome, Expansion)
    assert len(a.calls) == 4
    assert dispatch._metrics.registry.get_sample_value("seedset_retries_total", {"stage": "A"}) == 3


def test_a_task_that_kills_replicas_does_not_have_them_all() -> None:
    a = FakeHandle(lambda n, task: ActorDiedError())
    with pytest.raises(UnavailableError, match="stage A does not answer"):
        ask(made({"A": a, "B": FakeHandle(found)}), [expansion()])
    assert len(a.calls) == module.MAX_DEATHS + 1


def test_a_stage_that_stays_away_is_an_error_when_the_time_is_over() -> None:
    a = FakeHandle(lambda n, task: DeploymentUnavailableError(DeploymentID("A")))
    with pytest.raises(UnavailableError, match="stage A does not answer"):
        ask(made({"A": a, "B": FakeHandle(found)}), [expansion(seconds=0.3)])
    assert len(a.calls) > module.MAX_DEATHS + 1


def test_a_full_queue_is_an_error_at_once() -> None:
    a = FakeHandle(lambda n, task: BackPressureError(9, 9))
    with pytest.raises(OverloadedError, match="stage A has too many"):
        ask(made({"A": a, "B": FakeHandle(found)}), [expansion()])
    assert len(a.calls) == 1


def test_large_requests_are_cut_and_come_back_in_order() -> None:
    a, b = FakeHandle(found), FakeHandle(found)
    outcomes = ask(made({"A": a, "B": b}), [expansion(f"{i}") for i in range(150)])
    assert [o.query.id for o in outcomes if isinstance(o, Expansion)] == [f"{i}" for i in range(150)]
    assert [len(task.expansions) for task in a.calls] == [64, 64, 22]


def test_an_expansion_that_failed_goes_no_further() -> None:
    failed = Failure("query", "no", 422)
    a = FakeHandle(
        lambda n, task: Reply(
            [failed if e.query.id == "1" else replace(e, ranking=FOUND) for e in task.expansions]
        )
    )
    b = FakeHandle(found)
    outcomes = ask(made({"A": a, "B": b}), [expansion(f"{i}") for i in range(3)])
    assert outcomes[1] == failed
    assert [e.query.id for e in b.calls[0].expansions] == ["0", "2"]


def test_a_stage_that_does_not_end_in_time_is_left_out_by_name() -> None:
    slow = FakeHandle(found, delay=60)
    started = time.monotonic()
    (outcome,) = ask(made({"A": FakeHandle(found), "B": slow}), [expansion(seconds=0.1)])
    assert time.monotonic() - started < 20
    assert isinstance(outcome, Expansion)
    assert outcome.degraded == ("Generate: left out, the deadline came first",)
    (nothing,) = ask(made({"A": slow, "B": slow}), [expansion(seconds=0.1)])
    assert isinstance(nothing, Failure)
    assert (nothing.code, nothing.status) == ("timeout", 504)
    assert "Retrieve" in nothing.message


def test_a_stream_tells_each_step_and_starts_a_hop_again_where_a_replica_is_lost() -> None:
    a = FakeHandle(lambda n, task: ActorDiedError() if n == 1 else found(n, task))
    dispatch = made({"A": a, "B": FakeHandle(found)})

    async def listen() -> list[Progress | Outcome]:
        return [one async for one in dispatch.stream("m", "bundle", expansion(), "r")]

    *steps, last = asyncio.run(listen())
    assert steps == [StageDone("A", 0.1, 1)] * 3
    assert isinstance(last, Expansion)


def test_who_stops_listening_stops_the_work() -> None:
    a = FakeHandle(found, delay=5)
    dispatch = made({"A": a, "B": FakeHandle(found)})

    async def leave() -> None:
        stream = dispatch.stream("m", "bundle", expansion(), "r")
        assert await anext(stream) == StageDone("A", 0.1, 1)
        await stream.aclose()  # type: ignore[attr-defined]

    asyncio.run(leave())
    assert a.cancelled == 1
    assert dispatch._admission.queries == 0


def test_too_much_under_way_is_refused_before_any_stage_is_asked() -> None:
    a = FakeHandle(found)
    dispatch = made({"A": a, "B": FakeHandle(found)})
    dispatch._admission = Admission(2, 5)

    async def many() -> list[Any]:
        calls = (dispatch("m", "bundle", [expansion()], "r") for _ in range(4))
        return await asyncio.gather(*calls, return_exceptions=True)

    answers = asyncio.run(many())
    assert [isinstance(one, OverloadedError) for one in answers] == [False, False, True, True]
    assert len(a.calls) == 2
