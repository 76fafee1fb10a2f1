"""A patient caller: asks again where it may, and says what came."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx
import pytest

from cluster.crashing.clients import PATIENCE_S, Question, ask
from cluster.crashing.events import Answered

QUESTION = Question("ask-1", ("Mars",), ("Venus",), 20)
SEEN = {
    "id": "ask-1",
    "bundle": "b1",
    "degraded": [],
    "results": [{"id": 3, "name": "Saturn", "score": 0.5}],
}
Came = httpx.Response | Exception


def asked(came: Iterator[Came]) -> Answered:
    """Ask a service that answers so, by a clock that only waiting moves."""
    clock = [100.0]

    def answer(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == json.loads(json.dumps(QUESTION.body("default")))
        one = next(came)
        if isinstance(one, Exception):
            raise one
        return one

    def wait(seconds: float) -> None:
        clock[0] += seconds

    with httpx.Client(transport=httpx.MockTransport(answer), base_url="http://service") as http:
        return ask(http, QUESTION, "default", lambda: clock[0], wait)


def test_an_answer_is_kept_with_its_times() -> None:
    one = asked(iter([httpx.Response(200, json=SEEN)]))
    assert one == Answered(100.0, 100.0, "ask-1", "default", 20, SEEN, 1, "")


def test_equal_answers_are_one_object_whatever_else_they_say() -> None:
    bodies = [SEEN | {"seconds": {"Retrieve": 0.1}}, SEEN | {"seconds": {}, "method": "default"}]
    first, second = (asked(iter([httpx.Response(200, json=body)])).body for body in bodies)
    assert first is second
    assert asked(iter([httpx.Response(200, json=SEEN | {"bundle": "b2"})])).body == SEEN | {"bundle": "b2"}


def test_who_is_told_to_come_again_does_and_a_broken_connection_is_tried_again() -> None:
    came: list[Came] = [
        httpx.ReadError("reset"),
        httpx.Response(503),
        httpx.Response(200, json=SEEN),
    ]
    one = asked(iter(came))
    assert (one.tries, one.why, one.body) == (3, "", SEEN)
    assert one.at == pytest.approx(100.6)


def test_what_no_caller_should_see_is_kept_beside_the_answer() -> None:
    came = [httpx.Response(500, text="Internal Server Error"), httpx.Response(200, json=SEEN)]
    assert asked(iter(came)).why == "status 500: Internal Server Error"


@pytest.mark.parametrize(
    ("again", "why"),
    [(lambda: httpx.ConnectError("refused"), "ConnectError"), (lambda: httpx.Response(503), "status 503")],
)
def test_patience_ends(again: Callable[[], Came], why: str) -> None:
    one = asked(again() for _ in iter(int, 1))
    assert one.body is None
    assert one.why == why
    assert PATIENCE_S < one.at - one.sent < PATIENCE_S + 3
