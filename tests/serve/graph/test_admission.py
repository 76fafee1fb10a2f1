"""Test admission by the work in flight and the rate at which it is done."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.errors import OverloadedError
from serve.graph.admission import OVERHEAD_S, Admission


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taught(clock: Clock, seconds: float, max_wait_s: float = 5, max_queued: int = 100) -> Admission:
    """An admission that has seen 16 queries of a route, one after the other."""
    admission = Admission(max_queued, max_wait_s, clock)
    for _ in range(16):
        with admission.admit("m", 1) as answered:
            clock.now += seconds + OVERHEAD_S
            answered(1, seconds)
    return admission


def test_a_query_that_would_wait_too_long_is_refused_and_told_when_to_come() -> None:
    admission = taught(Clock(), seconds=1)
    with ExitStack() as held:
        for _ in range(5):  # five seconds of work, and a little for the way
            held.enter_context(admission.admit("m", 1))
        with pytest.raises(OverloadedError, match="would wait 5") as refused, admission.admit("m", 1):
            pass
    assert 1 <= (refused.value.retry_after_s or 0) <= 6
    assert refused.value.status == 503
    with admission.admit("m", 1):
        assert admission.queries == 1


def test_work_counts_not_queries() -> None:
    clock = Clock()
    admission = taught(clock, seconds=1)
    for _ in range(32):
        with admission.admit("quick", 1) as answered:
            clock.now += 0.004
            answered(1, 0.001)
    with ExitStack() as held:
        for _ in range(90):  # 0.4 s of work
            held.enter_context(admission.admit("quick", 1))
        assert admission.wait_s < 1
        for _ in range(5):
            held.enter_context(admission.admit("m", 1))
        with pytest.raises(OverloadedError), admission.admit("quick", 1):
            pass


def test_replicas_that_work_side_by_side_are_in_the_rate() -> None:
    clock = Clock()
    admission = Admission(100, 5, clock)
    for _ in range(16):
        with ExitStack() as held:
            answers = [held.enter_context(admission.admit("m", 1)) for _ in range(4)]
            clock.now += 1
            for answered in answers:
                answered(1, 1)
    with ExitStack() as held:
        for _ in range(20):
            held.enter_context(admission.admit("m", 1))
        assert admission.wait_s == pytest.approx(5, rel=0.1)


def test_idle_time_is_not_taken_for_slowness() -> None:
    clock = Clock()
    admission = taught(clock, seconds=1)
    clock.now += 1000
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(admission.admit("m", 1))
        assert admission.wait_s == pytest.approx(4, rel=0.1)


def test_more_queries_than_the_limit_are_refused_whatever_they_cost() -> None:
    admission = Admission(3, 5, Clock())
    with admission.admit("m", 2):
        with pytest.raises(OverloadedError, match="2 queries are in flight"), admission.admit("m", 2):
            pass
        with admission.admit("m", 1):
            pass
    with admission.admit("m", 50):  # a batch alone may be larger
        pass


def test_what_was_never_answered_is_not_let_in_without_end() -> None:
    admission = Admission(500, 5, Clock())
    with ExitStack() as held:
        for _ in range(100):  # taken for a twentieth of a second each
            held.enter_context(admission.admit("m", 1))
        held.enter_context(admission.admit("m", 1))
        with pytest.raises(OverloadedError):
            admission.admit("m", 1).__enter__()


def test_two_are_always_let_in() -> None:
    admission = taught(Clock(), seconds=1000)
    with admission.admit("m", 1), admission.admit("m", 1), pytest.raises(OverloadedError):
        admission.admit("m", 1).__enter__()


@given(st.lists(st.tuples(st.integers(1, 5), st.floats(0, 10), st.booleans()), max_size=80))
def test_what_leaves_takes_its_work_with_it(steps: list[tuple[int, float, bool]]) -> None:
    clock = Clock()
    admission = Admission(20, 5, clock)
    held: list[tuple[object, object, int]] = []
    for queries, seconds, leaves in steps:
        clock.now += seconds
        if leaves and held:
            block, answered, n = held.pop(0)
            answered(n, seconds)  # type: ignore[operator]
            block.__exit__(None, None, None)  # type: ignore[attr-defined]
            continue
        block = admission.admit("m", queries)
        try:
            held.append((block, block.__enter__(), queries))
        except OverloadedError:
            continue
        assert admission.wait_s >= 0
    for block, _, _ in held:
        block.__exit__(None, None, None)  # type: ignore[attr-defined]
    assert (admission.queries, admission.wait_s) == (0, 0)
