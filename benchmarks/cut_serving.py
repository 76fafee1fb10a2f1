"""Cut a node off under a service: two replicas of it on two nodes, and callers that ask again.

The callers are on the node that stays. Each asks one question after the other, and again where it is told to
or the connection breaks, for two minutes at most. A request is lost if it has no answer then. Every answer
must be the ranking that one process gives.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.network_nodes import Namespace, Nodes
from benchmarks.report import report
from benchmarks.serving import verdict
from cluster.crashing.checker import Ranking, as_ranking
from cluster.crashing.clients import Question, load
from cluster.crashing.events import Answered, Log
from cluster.crashing.prepared import QUESTIONS, question
from cluster.crashing.service import service
from engine.expander import Expander
from engine.storage.bundle import Bundle

CLIENTS = 4

BEFORE = 40
"""Answers before the cut."""

STEADY_S = 300.0
"""Time for them."""

AFTER_S = 60.0
"""Time that is counted after the head has given the node up, and after another is in its place."""

LATE_S = 5.0
"""A request that took longer is told of as one that waited."""


class Served(NamedTuple):
    """What came of requests.

    Args:
        when: they were under way.
        sent, lost, wrong, again, late: requests; without an answer, with another answer than one process
            gives, sent more than once, answered after more than :data:`LATE_S`.
        longest_s: of a request.
        gap_s: longest time in which no caller had an answer.
    """

    when: str
    sent: int
    lost: int
    wrong: int
    again: int
    late: int
    longest_s: float
    gap_s: float


def served(when: str, answers: Sequence[Answered], due: dict[str, Ranking]) -> Served:
    """Count what came of requests.

    Args:
        when: see :class:`Served`.
        answers: the requests.
        due: the ranking of each question.
    """
    right = [one for one in answers if one.body is not None and ranking_of(one) == due[one.query]]
    lost = sum(one.body is None for one in answers)
    ends = sorted(one.at for one in answers if one.body is not None)
    took = [one.at - one.sent for one in answers]
    return Served(
        when,
        len(answers),
        lost,
        len(answers) - lost - len(right),
        sum(one.tries > 1 for one in answers),
        sum(seconds > LATE_S for seconds in took),
        max(took, default=0.0),
        max((b - a for a, b in itertools.pairwise(ends)), default=0.0),
    )


def ranking_of(one: Answered) -> Ranking:
    """Return the ranking of an answer that came."""
    assert one.body is not None
    return as_ranking((result["id"], result["score"]) for result in one.body["results"])


def ask_within(
    namespace: Namespace,
    url: str,
    questions: Sequence[Question],
    method: str,
    log: Log,
    stop: threading.Event,
) -> None:
    """Ask in a namespace until ``stop``; for a thread of its own."""
    namespace.enter()
    load(url, questions, [method], log, stop)


def serve_cut(bundle: Bundle, method: str, nodes: Nodes, folder: Path, log: Log) -> None:
    """Serve on both nodes, cut one off under load, bring it back, and report what came of the requests."""
    workspace, drawn = bundle.folder.parent.parent, random.Random(5)
    names = list(bundle.vocabulary.names)
    asked = [question(f"ask-{number:02}", names, drawn) for number in range(QUESTIONS)]
    due = rankings_alone(workspace, method, asked)
    stop = threading.Event()
    with service(workspace, [method], folder / "service.log", nodes.head.words) as url:
        clients = [
            threading.Thread(target=ask_within, args=(nodes.head, url, asked, method, log, stop))
            for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        try:
            _wait_for(log, BEFORE)
            at_work, cut_at = nodes.worker.workers(), log.now()
            nodes.worker.switch("down")
            nodes.wait_for(1, STEADY_S)
            lost_at = log.now()
            time.sleep(AFTER_S)
            back_at = log.now()
            nodes.mend()
            time.sleep(AFTER_S)
        finally:
            stop.set()
            for client in clients:
                client.join()
    answers = log.of(Answered)
    phases = [
        served("before the cut", [one for one in answers if one.at < cut_at], due),
        served("from the cut on", [one for one in answers if cut_at <= one.at < back_at], due),
        served("while the node comes back", [one for one in answers if one.at >= back_at], due),
    ]
    show(phases, at_work, lost_at - cut_at)


def rankings_alone(workspace: Path, method: str, asked: Sequence[Question]) -> dict[str, Ranking]:
    """Return what one process answers to each question."""
    alone, due = Expander.open(workspace, method), {}
    for one in asked:
        answer = alone.expand(one.positive, one.negative, one.top_k)
        due[one.id] = as_ranking((result.id, result.score) for result in answer.results)
    return due


def _wait_for(log: Log, answers: int) -> None:
    """Wait for so many answers.

    Raises:
        TimeoutError: they do not come.
    """
    end = time.monotonic() + STEADY_S
    while sum(one.body is not None for one in log.of(Answered)) < answers:
        if time.monotonic() > end:
            raise TimeoutError(f"no {answers} answers within {STEADY_S:.0f} s")
        time.sleep(0.5)


def show(phases: Sequence[Served], at_work: int, lost_s: float) -> None:
    """Print the table and the figures."""
    lost, wrong = sum(one.lost for one in phases), sum(one.wrong for one in phases)
    holds = not lost and not wrong and at_work > 0
    report(
        f"A service on two nodes, one of them cut off; the head gave it up after {lost_s:.0f} s; {at_work} "
        f"of Ray's workers were on it. No request lost, none answered otherwise: {verdict(holds)}",
        ["requests", "", "lost", "wrong", "sent again", f"over {LATE_S:.0f} s", "longest s", "longest gap s"],
        [
            [o.when, *map(str, (o.sent, o.lost, o.wrong, o.again, o.late)), *_seconds(o.longest_s, o.gap_s)]
            for o in phases
        ],
        name="network_partition_serving",
        lost=lost,
        wrong=wrong,
        longest_s=max(one.longest_s for one in phases),
        gap_s=max(one.gap_s for one in phases),
        holds=holds,
    )


def _seconds(*values: float) -> list[str]:
    return [f"{value:.1f}" for value in values]
