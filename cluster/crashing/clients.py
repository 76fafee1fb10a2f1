"""Ask the service over HTTP as a patient caller does: again where it says so, or the connection broke."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx

from cluster.crashing.events import Answered, Log

PATIENCE_S = 120.0
"""Time after which a request that was not answered counts as lost."""

PAUSE_S, LONGEST_PAUSE_S = 0.2, 2.0
TRY_S = 60.0

COME_AGAIN = 503
"""The status that says so; any other but 200 is no answer that a caller should see."""


@dataclass(frozen=True)
class Question:
    """A query: the seeds' names, and how many entities are wanted."""

    id: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    top_k: int

    def row(self) -> dict[str, Any]:
        """Return the row of a table of queries."""
        return {"id": self.id, "positive": self.positive, "negative": self.negative, "top_k": self.top_k}

    def body(self, method: str) -> dict[str, Any]:
        """Return the body of the request."""
        return self.row() | {"method": method}


def ask(
    http: httpx.Client,
    question: Question,
    method: str,
    now: Callable[[], float],
    wait: Callable[[float], None] = time.sleep,
) -> Answered:
    """Ask until there is an answer, or patience ends.

    Args:
        http: knows the service's address.
        question: see there.
        method: by which it is to be answered.
        now: seconds since the load began.
        wait: between two tries.
    """
    sent, pause, why = now(), PAUSE_S, ""
    failure = ""  # a status that no fault excuses
    for tries in itertools.count(1):
        try:
            response = http.post("/v1/expand", json=question.body(method), timeout=TRY_S)
        except httpx.TransportError as error:
            why = type(error).__name__
        else:
            if response.status_code == 200:
                done = (question.id, method, question.top_k, seen(response.json()), tries, failure)
                return Answered(now(), sent, *done)
            why = f"status {response.status_code}"
            if response.status_code != COME_AGAIN:
                failure = f"{why}: {response.text[:200]}"
        if now() - sent > PATIENCE_S:
            return Answered(now(), sent, question.id, method, question.top_k, None, tries, failure or why)
        wait(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    raise AssertionError  # the loop has no end of its own


def seen(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what is checked of an answer; one object for all equal ones, of which an hour brings 100,000.

    Args:
        body: of the answer.

    Returns:
        ``id``, ``bundle``, ``degraded``, and ``id``, ``name`` and ``score`` of each of ``results``.
    """
    kept: dict[str, Any] = {key: body[key] for key in ("id", "bundle", "degraded")}
    kept["results"] = [{key: one[key] for key in ("id", "name", "score")} for one in body["results"]]
    return _shared(json.dumps(kept))


@lru_cache(4096)
def _shared(text: str) -> Mapping[str, Any]:
    return dict(json.loads(text))


def load(
    url: str, questions: Sequence[Question], methods: Sequence[str], log: Log, stop: threading.Event
) -> None:
    """Ask the questions in turn, by each method, one after the other, until ``stop``."""
    with httpx.Client(base_url=url, trust_env=False) as http:
        for question, method in itertools.cycle(itertools.product(questions, methods)):
            if stop.is_set():
                return
            log.add(ask(http, question, method, log.now))
