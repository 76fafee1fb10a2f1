"""The checker names each kind of violation, and nothing where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.crashing.checker import (
    INVARIANTS,
    Undisturbed,
    check_answer,
    check_command,
    check_table,
    check_training,
    lag_of,
)
from cluster.crashing.events import Answered, Ended, Expanded, Pointed, Trained

RANKED = {"one": [(2, 0.75), (0, 0.5)], "other": [(1, 0.625), (2, 0.25)], "third": [(0, 1.0), (1, 0.5)]}
NAMES = ["Mars", "Venus", "Earth"]
DUE = Undisturbed(
    answer=lambda bundle, method, query: RANKED[bundle],
    names=lambda bundle: NAMES,
    queries=["q0", "q1", "q2"],
    digests={"part-0": "aa", "part-1": "bb"},
    loss=4.25,
    steps=60,
)
POINTED = [Pointed(0.0, "one"), Pointed(100.0, "other"), Pointed(200.0, "one"), Pointed(300.0, "other")]


def answered(bundle: str = "one", sent: float = 10.0, ranked: str = "", **changed: Any) -> Answered:
    results = [{"id": e, "name": NAMES[e], "score": score} for e, score in RANKED[ranked or bundle]]
    body = {"id": "q0", "bundle": bundle, "degraded": [], "results": results} | changed
    return Answered(sent + 1, sent, "q0", "default", 2, body)


def named(one: Answered) -> list[str]:
    return [violation.invariant for violation in check_answer(one, POINTED, DUE)]


@pytest.mark.parametrize(("bundle", "sent"), [("one", 10), ("other", 150), ("one", 250), ("other", 900)])
def test_the_answer_of_the_current_bundle_is_right(bundle: str, sent: float) -> None:
    assert named(answered(bundle, sent)) == []


def test_a_bundle_may_answer_for_the_time_that_is_documented() -> None:
    late = answered("one", sent=159.0)
    assert named(late) == []
    assert lag_of(late, POINTED) == 59.0
    assert named(answered("one", sent=161.0)) == ["stale"]
    assert named(answered("one", sent=361.0)) == ["stale"], (
        "that it was current before 200 s, too, is the same"
    )


def test_an_answer_may_be_of_a_bundle_that_comes_while_it_is_asked_for() -> None:
    assert named(answered("other", sent=99.5)) == []
    assert lag_of(answered("other", sent=99.5), POINTED) == 0.0


@pytest.mark.parametrize(
    ("one", "invariants"),
    [
        (answered()._replace(body=None, why="ConnectError", tries=9), ["missing"]),
        (answered(results=[]), ["missing", "wrong"]),
        (answered(id="q1"), ["phantom query"]),
        (answered("third"), ["phantom bundle"]),
        (answered("other", sent=50.0), ["phantom bundle"]),
        (answered(ranked="other"), ["mixed"]),
        (answered(ranked="third"), ["wrong"]),
        (answered()._replace(why="status 500: Internal Server Error"), ["failed"]),
        (
            answered(results=[{"id": 7, "name": "Pluto", "score": 1.0}] * 2),
            ["phantom entity"] * 2 + ["twice", "wrong"],
        ),
        (
            answered(
                results=[{"id": 2, "name": "Venus", "score": 0.75}, {"id": 0, "name": "Mars", "score": 0.5}]
            ),
            ["phantom entity"],
        ),
        (answered(results=[{"id": 2, "name": "Earth", "score": 0.75}] * 2), ["twice", "wrong"]),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(one: Answered, invariants: list[str]) -> None:
    assert named(one) == invariants


def test_an_answer_that_says_that_something_was_left_out_is_no_wrong_one() -> None:
    assert named(answered(ranked="third", degraded=["GenerativeRerank: no time"])) == []


def expanded(**changed: Any) -> Expanded:
    whole = Expanded(9.0, "out", ["q0", "q1", "q2"], dict(DUE.digests), [], 0, 0)
    return whole._replace(**changed)


@pytest.mark.parametrize(
    ("one", "invariants"),
    [
        (expanded(), []),
        (expanded(lost=16, again=16), []),
        (expanded(queries=["q0", "q2"]), ["missing"]),
        (expanded(queries=["q0", "q1", "q2", "q9"]), ["phantom query"]),
        (expanded(queries=["q0", "q1", "q1", "q2"]), ["twice"]),
        (expanded(remade=["part-0"]), ["recomputed"]),
        (expanded(lost=16, again=32), ["recomputed"]),
        (expanded(digests={"part-0": "aa", "part-1": "cc"}), ["batch"]),
        (expanded(digests={"part-0": "aa"}), ["batch"]),
        (expanded(digests={**DUE.digests, "part-2": "dd"}), ["batch"]),
    ],
)
def test_what_is_wrong_with_a_table_is_named(one: Expanded, invariants: list[str]) -> None:
    assert [violation.invariant for violation in check_table(one, DUE)] == invariants


@pytest.mark.parametrize(
    ("one", "invariants"),
    [
        (Trained(9.0, 4.25, 60, 0), []),
        (Trained(9.0, 4.25, 60, 20, stopped_at=15), []),
        (Trained(9.0, 4.26, 60, 0), ["training"]),
        (Trained(9.0, float("nan"), 60, 0), ["training"]),
        (Trained(9.0, 4.25, 59, 0), ["training"]),
        (Trained(9.0, 4.25, 60, 0, stopped_at=15), ["training"]),
    ],
)
def test_what_is_wrong_with_a_training_is_named(one: Trained, invariants: list[str]) -> None:
    assert [violation.invariant for violation in check_training(one, DUE)] == invariants


def test_a_command_fails_where_nobody_ended_it() -> None:
    failed = Ended(9.0, "publisher", 2, False, "…\nerror: the disk is full\n")
    (violation,) = check_command(failed)
    assert violation.invariant == "failed"
    assert violation.detail == "publisher: status 2: error: the disk is full"
    assert not list(check_command(failed._replace(killed=True)))
    assert not list(check_command(failed._replace(status=0)))


def test_all_that_is_checked_is_explained() -> None:
    seen = {"half-written"}  # by the crasher itself, which opens the bundles
    seen |= {
        "missing",
        "phantom query",
        "phantom entity",
        "phantom bundle",
        "twice",
        "mixed",
        "wrong",
        "stale",
    }
    assert seen | {"recomputed", "batch", "training", "failed"} == set(INVARIANTS)
