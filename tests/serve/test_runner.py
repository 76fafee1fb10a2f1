"""Batches of tasks: order, sharing, one failure staying alone. Retries of the dispatch."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from engine.bundle import Bundle
from engine.errors import QueryError
from engine.query import Expansion, Query, from_rows, to_rows
from engine.stages.base import Stage, Worker
from engine.stages.retrieve import Retrieve
from serve import graph
from serve.errors import UnavailableError
from serve.graph import HandleDispatch
from serve.runner import Row, StageRunner, Task


class Step(Stage):
    """Notes its name and batch size; fails on queries that say so."""

    label: str

    def open(self, bundle: Bundle) -> Worker:
        def run(expansions: list[Expansion]) -> list[Expansion]:
            for e in expansions:
                if e.query.id == "poison":
                    raise ZeroDivisionError("secret")
                if e.query.id == "refused":
                    raise QueryError("not this one")
            note = f"{self.label}{len(expansions)}"
            return [Expansion(e.query, e.ranking, e.seconds, (*e.degraded, note)) for e in expansions]

        return run


def task(chain: tuple[int, ...], *ids: str, seconds: float = 60) -> Task:
    rows = to_rows([Expansion(Query(i, (1,))) for i in ids])
    return Task(chain, rows, time.time() + seconds)


def notes(row: Row) -> tuple[str, ...]:
    return from_rows([row])[0].degraded


@pytest.fixture
def runner(bundle: Bundle) -> StageRunner:
    return StageRunner(bundle, [Step(label="a"), Step(label="b")], max_batch_size=4)


def test_tasks_with_one_chain_share_batches_and_keep_their_order(runner: StageRunner) -> None:
    tasks = [task((0, 1), "1", "2"), task((1,), "3"), task((0, 1), "4", "5", "6")]
    answers = runner.run(tasks)
    ids = [[row["query_id"] for row in rows] for rows in answers]
    assert ids == [["1", "2"], ["3"], ["4", "5", "6"]]
    assert [notes(row) for row in answers[0]] == [("a4", "b4")] * 2
    assert [notes(row) for row in answers[1]] == [("b1",)]
    assert [notes(row) for row in answers[2]] == [("a4", "b4")] * 2 + [("a1", "b1")]


def test_a_query_that_breaks_its_batch_breaks_alone(
    runner: StageRunner, caplog: pytest.LogCaptureFixture
) -> None:
    (rows,) = runner.run([task((0,), "1", "poison", "refused", "2")])
    assert notes(rows[0]) == notes(rows[3]) == ("a1",)
    assert rows[1]["failed"]["status"] == 500
    assert "secret" not in rows[1]["failed"]["message"]
    assert "secret" in caplog.text
    assert rows[2]["failed"] == {"type": "query", "message": "not this one", "status": 422}


def test_a_query_whose_time_is_over_is_not_computed(runner: StageRunner) -> None:
    late, fine = runner.run([task((0,), "1", seconds=-1), task((0,), "2")])
    assert late[0]["failed"]["status"] == 504
    assert notes(fine[0]) == ("a1",)


def test_a_stage_whose_files_are_missing_answers_503_and_leaves_the_others_alone(
    bundle: Bundle,
) -> None:
    runner = StageRunner(bundle, [Retrieve(view="nowhere"), Step(label="b")], max_batch_size=4)
    broken, fine = runner.run([task((0,), "1"), task((1,), "2")])
    assert broken[0]["failed"]["status"] == 503
    assert "index/nowhere.faiss" in broken[0]["failed"]["message"]
    assert notes(fine[0]) == ("b1",)


class FakeHandle:
    """A deployment's handle; ``answer`` says what each call gives."""

    def __init__(self, answer: Callable[[int, Task], Any]) -> None:
        self.calls = 0
        self._answer = answer
        self.run = self

    async def remote(self, task: Task) -> Any:
        self.calls += 1
        answer = self._answer(self.calls, task)
        if isinstance(answer, Exception):
            raise answer
        return answer


def dispatch(handle: FakeHandle, max_batch_size: int = 2) -> HandleDispatch:
    return HandleDispatch({"m": (("A", (0,)),)}, {"A": handle}, max_batch_size)  # type: ignore[dict-item]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "FIRST_PAUSE_S", 0.0)


def send(handle: FakeHandle, rows: list[Row]) -> list[Row]:
    return asyncio.run(dispatch(handle)("m", rows, time.time() + 60))


def test_rows_lost_with_a_replica_are_sent_again() -> None:
    handle = FakeHandle(lambda n, task: ActorDiedError() if n < 3 else list(task.rows))
    rows: list[Row] = [{"row": 1}]
    assert send(handle, rows) == rows
    assert handle.calls == 3


def test_a_stage_that_stays_away_is_tried_a_bounded_number_of_times() -> None:
    handle = FakeHandle(lambda n, task: ActorDiedError())
    with pytest.raises(UnavailableError, match="stage A does not answer"):
        send(handle, [{"row": 1}])
    assert handle.calls == graph.ATTEMPTS


def test_a_full_queue_is_an_error_at_once() -> None:
    handle = FakeHandle(lambda n, task: BackPressureError(9, 9))
    with pytest.raises(UnavailableError, match="too many requests"):
        send(handle, [{"row": 1}])
    assert handle.calls == 1


def test_large_requests_are_cut_and_come_back_in_order() -> None:
    handle = FakeHandle(lambda n, task: list(task.rows))
    rows: list[Row] = [{"row": i} for i in range(5)]
    assert send(handle, rows) == rows
    assert handle.calls == 3


def test_a_row_that_failed_goes_no_further() -> None:
    failed = {"failed": {"type": "t", "message": "m", "status": 500}}
    first = FakeHandle(lambda n, task: [failed if row["row"] == 1 else row for row in task.rows])
    second = FakeHandle(lambda n, task: [{"row": row["row"] * 10} for row in task.rows])
    routes = {"m": (("A", (0,)), ("B", (0,)))}
    both = HandleDispatch(routes, {"A": first, "B": second}, 8)  # type: ignore[dict-item]
    rows = asyncio.run(both("m", [{"row": i} for i in range(3)], time.time() + 60))
    assert rows == [{"row": 0}, failed, {"row": 20}]


def test_rows_survive_the_way_bit_by_bit() -> None:
    query = Query("q", (1, 2), (3,), 9)
    (back,) = from_rows(to_rows([Expansion(query)]))
    assert back.query == query
    assert back.ranking.ids.dtype == np.int32
