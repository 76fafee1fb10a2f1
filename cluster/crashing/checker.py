"""Check the events of a run against what must hold, whatever died; knows nothing of what made them."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from cluster.crashing.events import Answered, Ended, Expanded, Pointed, Trained
from cluster.crashing.schedule import STALE_S

TOLERANCE = 1e-3
"""Relative difference of losses of equal trainings: other numbers of threads sum otherwise at each step."""

Ranking = list[tuple[int, float]]
"""Entities with their scores, best first, see :func:`as_ranking`."""

INVARIANTS = {
    "missing": "a request, a query of a table or a training without its end",
    "phantom query": "an answer to what nobody asked",
    "phantom entity": "an answer with what its bundle does not hold",
    "phantom bundle": "an answer of a bundle that never was the current one",
    "twice": "a query or an entity that comes twice",
    "mixed": "an answer that names one bundle and ranks as another",
    "wrong": "an answer that no bundle gives",
    "stale": "an answer of a bundle that was replaced long before it was asked for",
    "half-written": "a current bundle that is not whole",
    "recomputed": "a part that was whole and was made again, or more rows made again than were lost",
    "batch": "a table whose bytes are not those of an undisturbed run",
    "training": "a training that ends elsewhere than an undisturbed one, or begins anew after a stop",
    "failed": "a command that ended with an error though nobody ended it",
}
"""What is violated, by name."""


class Violation(NamedTuple):
    """Something that must not be.

    Args:
        at: second at which it was seen.
        invariant: a key of :data:`INVARIANTS`.
        detail: what was seen.
    """

    at: float
    invariant: str
    detail: str


@dataclass(frozen=True)
class Undisturbed:
    """What comes where nothing dies.

    Args:
        answer: returns what one process answers to a query by a method from a bundle; raises KeyError for a
            bundle that there is not.
        names: returns a bundle's names by entity id.
        queries: the ids of the table's queries, in order.
        digests: sha256 of each part of the expanded table.
        loss, steps: of the training.
    """

    answer: Callable[[str, str, str], Ranking]
    names: Callable[[str], Sequence[str]]
    queries: Sequence[str]
    digests: Mapping[str, str]
    loss: float
    steps: int


def as_ranking(pairs: Iterable[tuple[int, float]]) -> Ranking:
    """Return entities with their scores as the engine has them, in single precision."""
    return [(entity, float(np.float32(score))) for entity, score in pairs]


def check_answer(
    one: Answered, pointed: Sequence[Pointed], due: Undisturbed, stale_s: float = STALE_S
) -> Iterator[Violation]:
    """Yield what is wrong with an answer.

    Args:
        one: the answer.
        pointed: what the pointer held, in the order of time.
        due: what one process answers.
        stale_s: see :data:`~cluster.crashing.schedule.STALE_S`.
    """
    about = f"{one.method} of {one.query}, sent at {one.sent:.1f} s"
    body = one.body
    if body is None:
        yield Violation(one.at, "missing", f"{about}: no answer in {one.tries} tries ({one.why})")
        return
    if one.why:
        yield Violation(one.at, "failed", f"{about}: {one.why}")
    if body["id"] != one.query:
        yield Violation(one.at, "phantom query", f"{about}: the answer is to {body['id']}")
    bundle = body["bundle"]
    if (wrong := _out_of_date(one, bundle, pointed, stale_s)) is not None:
        yield Violation(one.at, wrong[0], f"{about}: {wrong[1]}")
        if wrong[0] == "phantom bundle":
            return
    yield from _check_entities(one, about, due.names(bundle))
    found = as_ranking((result["id"], result["score"]) for result in body["results"])
    if body["degraded"] or found == due.answer(bundle, one.method, one.query):
        return
    others = {p.bundle for p in pointed} - {bundle}
    told = next((b for b in sorted(others) if found == due.answer(b, one.method, one.query)), None)
    if told is not None:
        yield Violation(one.at, "mixed", f"{about}: names {bundle} and ranks as {told}")
    else:
        yield Violation(one.at, "wrong", f"{about}: no bundle ranks so; it names {bundle}")


def _check_entities(one: Answered, about: str, names: Sequence[str]) -> Iterator[Violation]:
    assert one.body is not None
    results = one.body["results"]
    for result in results:
        entity, name = result["id"], result["name"]
        if not 0 <= entity < len(names) or names[entity] != name:
            yield Violation(one.at, "phantom entity", f"{about}: {name!r} with the id {entity}")
    twice = [entity for entity, n in Counter(r["id"] for r in results).items() if n > 1]
    if twice:
        yield Violation(one.at, "twice", f"{about}: the entities {twice}")
    if len(results) < one.top_k and not one.body["degraded"]:
        yield Violation(one.at, "missing", f"{about}: {len(results)} of {one.top_k} entities")


def _out_of_date(
    one: Answered, bundle: str, pointed: Sequence[Pointed], stale_s: float
) -> tuple[str, str] | None:
    """Return the invariant that the bundle of an answer violates, and how; None: none."""
    ends = [*(p.at for p in pointed[1:]), float("inf")]
    ruled = [(p.at, end) for p, end in zip(pointed, ends, strict=True) if p.bundle == bundle]
    if not ruled or ruled[0][0] > one.at:
        return "phantom bundle", f"{bundle} was not current until then"
    # The pointer may have come back to a bundle: what counts is the last time before the answer.
    last_end = max(end for began, end in ruled if began <= one.at)
    if last_end < one.sent - stale_s:
        return "stale", f"{bundle} was replaced {one.sent - last_end:.1f} s before"
    return None


def lag_of(one: Answered, pointed: Sequence[Pointed]) -> float:
    """Return how long before it was asked for an answer's bundle was replaced; 0: it was not."""
    if one.body is None:
        return 0.0
    place = bisect_right([p.at for p in pointed], one.sent) - 1
    while place >= 0 and pointed[place].bundle != one.body["bundle"]:
        place -= 1
    if place < 0 or place + 1 >= len(pointed):
        return 0.0
    return max(0.0, one.sent - pointed[place + 1].at)


def check_table(one: Expanded, due: Undisturbed) -> Iterator[Violation]:
    """Yield what is wrong with an expanded table."""
    about, seen = one.output, Counter(one.queries)
    if missing := [query for query in due.queries if query not in seen]:
        yield Violation(one.at, "missing", f"{about}: {len(missing)} queries, first {missing[0]}")
    if phantom := sorted(set(seen) - set(due.queries)):
        yield Violation(one.at, "phantom query", f"{about}: {len(phantom)} queries, first {phantom[0]}")
    if twice := [query for query, n in seen.items() if n > 1]:
        yield Violation(one.at, "twice", f"{about}: {len(twice)} queries, first {twice[0]}")
    if one.remade:
        yield Violation(one.at, "recomputed", f"{about}: whole parts were written again: {one.remade}")
    if one.again > one.lost:
        yield Violation(one.at, "recomputed", f"{about}: {one.again} rows made again, {one.lost} were lost")
    if differ := sorted(name for name in due.digests if due.digests[name] != one.digests.get(name)):
        yield Violation(one.at, "batch", f"{about}: not the undisturbed bytes: {differ}")
    if more := sorted(set(one.digests) - set(due.digests)):
        yield Violation(one.at, "batch", f"{about}: parts that the undisturbed has not: {more}")


def check_training(one: Trained, due: Undisturbed) -> Iterator[Violation]:
    """Yield what is wrong with a training that ended."""
    if one.steps != due.steps:
        yield Violation(one.at, "training", f"{one.steps} steps, {due.steps} undisturbed")
    if not abs(one.loss - due.loss) <= TOLERANCE * abs(due.loss):  # what is no number is no loss
        yield Violation(one.at, "training", f"loss {one.loss:.7f}, undisturbed {due.loss:.7f}")
    if one.stopped_at is not None and one.resumed_at < one.stopped_at:
        detail = f"went on from step {one.resumed_at}; when it was stopped there was one of {one.stopped_at}"
        yield Violation(one.at, "training", detail)


def check_command(one: Ended) -> Iterator[Violation]:
    """Yield an error of a command that nobody ended."""
    if one.status != 0 and not one.killed:
        last = (one.output.strip().splitlines() or [""])[-1]
        yield Violation(one.at, "failed", f"{one.command}: status {one.status}: {last}")
