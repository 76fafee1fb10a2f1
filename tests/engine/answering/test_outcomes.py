"""What becomes of the queries of a batch: one at fault, deadlines, rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.answering.outcomes import LEFT_OUT, answered
from engine.errors import BundleError, QueryError
from engine.query import Deadline, Expansion, Query, Ranking
from engine.refusals import Code, Refusal
from engine.stages.base import Stage, Worker
from engine.storage.bundle import Bundle

FOUND = Ranking(np.array([7], np.int32), np.ones(1, np.float32))
LATER = Ranking(np.array([8], np.int32), np.ones(1, np.float32))


class Step(Stage):
    """Not opened: its workers are those of the tests."""

    def open(self, bundle: Bundle) -> Worker:
        raise NotImplementedError


def queries(*names: str, deadline: Deadline | None = None) -> list[Expansion]:
    return [Expansion(Query(name, (1,), deadline=deadline), FOUND) for name in names]


def test_queries_at_fault_cost_the_others_nothing() -> None:
    sizes = []

    def worker(expansions: list[Expansion]) -> list[Expansion]:
        sizes.append(len(expansions))
        for e in expansions:
            if e.query.id == "refused":
                raise QueryError("not this one")
            if e.query.id == "bad":
                raise ZeroDivisionError("a defect")
        return [replace(e, ranking=LATER) for e in expansions]

    found = answered(Step(), worker, queries("a", "refused", "b", "bad", "c"))
    assert [o.query.id if isinstance(o, Expansion) else o for o in found] == [
        "a",
        Refusal(Code.QUERY_INVALID, "not this one"),
        "b",
        Refusal(Code.INTERNAL, "Step: ZeroDivisionError: a defect"),
        "c",
    ]
    assert sizes[0] == 5, "together first"
    assert all(o.seconds["Step"] > 0 for o in found if isinstance(o, Expansion))


def test_what_all_queries_lack_is_raised() -> None:
    def worker(expansions: list[Expansion]) -> list[Expansion]:
        raise BundleError("gone")

    with pytest.raises(BundleError):
        answered(Step(), worker, queries("a", "b"))


def test_a_deadline_is_the_querys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock moves by what a worker says that it takes: 3 seconds a query."""
    now, calls = [100.0], []
    monkeypatch.setattr("engine.query.time.monotonic", lambda: now[0])

    def worker(expansions: list[Expansion]) -> list[Expansion]:
        calls.append([e.query.id for e in expansions])
        now[0] += 3 * len(expansions)
        return [replace(e, ranking=LATER) for e in expansions]

    asked = [*queries("a", "b"), *queries("slow", "in time", deadline=Deadline(112.0)), *queries("c")]
    found = answered(Step(), worker, asked)
    assert calls == [["a", "b", "c"], ["slow"]], "the time of the others was its own, as it came to the stage"
    late = found[3]
    assert isinstance(late, Expansion)
    assert (late.ranking, late.degraded) == (FOUND, (f"Step: {LEFT_OUT}",))
    assert isinstance(found[2], Expansion)
    assert found[2].ranking is LATER
    nothing = [replace(e, ranking=Ranking.empty()) for e in queries("x", deadline=Deadline(0.0))]
    assert answered(Step(), worker, nothing) == [
        Refusal(Code.TIMEOUT, "the deadline came before Step had found anything")
    ]


def test_what_ends_after_the_deadline_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr("engine.query.time.monotonic", lambda: now[0])

    def worker(expansions: list[Expansion]) -> list[Expansion]:
        now[0] += 1
        return [replace(e, ranking=LATER) for e in expansions]

    late, in_time = answered(
        Step(), worker, [*queries("late", deadline=Deadline(0.5)), *queries("in", deadline=Deadline(2.0))]
    )
    assert isinstance(late, Expansion)
    assert isinstance(in_time, Expansion)
    assert (late.ranking, in_time.ranking) == (FOUND, LATER)


class Rounds:
    """A worker that grows lists, and refuses a query at its end."""

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        raise AssertionError("rounds are run one by one")

    def start(self, expansions: list[Expansion]) -> list[str]:
        return [e.query.id for e in expansions]

    def rounds(self, growing: list[str]) -> list[None]:
        return [None] * len(growing)

    def answer(self, expansion: Expansion, grown: str) -> Expansion:
        if grown == "refused":
            raise QueryError("too long")
        return replace(expansion, ranking=LATER)


def test_of_lists_that_grow_one_may_be_refused() -> None:
    good, refused = answered(Step(), Rounds(), queries("good", "refused"))
    assert isinstance(good, Expansion)
    assert good.ranking is LATER
    assert refused == Refusal(Code.QUERY_INVALID, "too long")
