"""Simulate serving, event by event: replicas that batch, admission, a replica that dies, autoscaling.

For questions that no machine at hand can answer: how many replicas for so many queries, what a lost one
costs. The admission is the service's own class with the simulation's clock; routing takes the shorter of two
queues drawn at random, as Ray Serve does; a replica takes what has come, up to a batch, whose time is a line
through that of one query and that of a full batch. Nothing is simulated of HTTP, memory or the network.

It is held against what was measured on a machine (docs/performance.md): a batch's time is taken from the
answers of 16 clients, and the 99th percentile under twice that load is predicted and compared.

    python -m benchmarks.serving_simulation
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.load import poisson
from benchmarks.report import report
from cluster import measured
from jobs import console
from serve.errors import OverloadedError
from serve.graph.admission import Admission
from serve.graph.dispatch import FIRST_PAUSE_S
from serve.settings import Autoscaling

BATCH = 4
"""Queries of a full batch of `lm-rerank`: a budget of 4,000 candidates at 1,000 a query."""

BAR = 1.25
"""The prediction may differ from what was measured by this factor."""

TICK_S = 1.0
LOOK_BACK_S = 30.0
"""Autoscaling looks each second at the mean of the last half minute's queries under way (Serve's default)."""

EXAMPLES = """
  python -m benchmarks.serving_simulation
  python -m benchmarks.serving_simulation --rate 20 --replicas 10 --seconds 600
"""


class Model(NamedTuple):
    """What is served, and by how many.

    Args:
        alone_s: seconds of a batch of one query.
        full_s: of a full batch.
        batch: queries of a full one.
        replicas: at the beginning.
        max_wait_s: expected wait above which a query is refused.
        max_queued: queries under way above which it is.
        start_s: seconds until a new replica answers.
        autoscaling: None: the number stays.
    """

    alone_s: float
    full_s: float
    batch: int = BATCH
    replicas: int = 1
    max_wait_s: float = 5.0
    max_queued: int = 512
    start_s: float = 20.0
    autoscaling: Autoscaling | None = None

    def seconds(self, queries: int) -> float:
        """Return what a batch takes."""
        return self.alone_s + (self.full_s - self.alone_s) * (queries - 1) / max(self.batch - 1, 1)


@dataclass(eq=False)
class _Query:
    """A query under way: when it came, who asks again after it, and its place in the admission's account."""

    came: float
    client: int | None
    admitted: AbstractContextManager[Callable[[int, float], None]]
    answered: Callable[[int, float], None]


@dataclass(eq=False)
class _Replica:
    """A replica: what waits for it, and what it computes. One that is retired takes nothing new."""

    waiting: deque[_Query] = field(default_factory=deque)
    batch: list[_Query] = field(default_factory=list)
    alive: bool = True
    retired: bool = False

    @property
    def load(self) -> int:
        return len(self.waiting) + len(self.batch)


@dataclass
class Outcome:
    """What happened: seconds of each answer, when each ended, refusals, and replicas over time."""

    seconds: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    refused: int = 0
    replicas: list[tuple[float, int]] = field(default_factory=list)

    def percentile(self, q: float) -> float:
        """Return a percentile of the answers' seconds; nan without answers."""
        return float(np.percentile(self.seconds, q)) if self.seconds else math.nan

    def rate(self, until: float) -> float:
        """Return the answers a second up to a moment."""
        return sum(end <= until for end in self.ends) / until


class Simulation:
    """One run.

    Args:
        model: of the service.
        seed: of the routing.
    """

    def __init__(self, model: Model, seed: int = 0) -> None:
        self._model, self._random = model, np.random.default_rng(seed)
        self.now, self.outcome = 0.0, Outcome()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._admission = Admission(model.max_queued, model.max_wait_s, clock=lambda: self.now)
        self._homeless: deque[_Query] = deque()
        self._replicas: list[_Replica] = []
        self._starting = 0
        self._under_way: deque[int] = deque(maxlen=round(LOOK_BACK_S / TICK_S))
        self._wants_since: dict[int, float] = {}
        self._until = math.inf
        for _ in range(model.replicas):
            self._join()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Let something happen at a second."""
        heapq.heappush(self._events, (when, next(self._numbers), what))

    def run(self, until: float) -> Outcome:
        """Let everything happen up to a second, and to its end what has begun by then."""
        self._until = until
        if self._model.autoscaling:
            self.at(TICK_S, self._scale)
        while self._events:
            self.now, _, what = heapq.heappop(self._events)
            what()
        return self.outcome

    def arrivals(self, seconds: Sequence[float]) -> None:
        """Let queries come at these seconds, whatever became of those before."""
        for second in seconds:
            self.at(second, self._ask)

    def clients(self, count: int) -> None:
        """Let clients ask, each again as soon as it was answered."""
        for client in range(count):
            self.at(0.0, lambda client=client: self._ask(client))  # type: ignore[misc]

    def kill(self, when: float) -> None:
        """Let a replica die at a second, with all that it has; a new one is started at once."""

        def die() -> None:
            alive = [one for one in self._replicas if not one.retired]
            if not alive:
                return
            lost = alive[0]
            lost.alive = False
            self._replicas.remove(lost)
            for query in (*lost.batch, *lost.waiting):
                self.at(self.now + FIRST_PAUSE_S, lambda query=query: self._route(query))  # type: ignore[misc]
            self._note()
            self._start()

        self.at(when, die)

    def _ask(self, client: int | None = None) -> None:
        if self.now >= self._until:
            return
        admitted = self._admission.admit("method", 1)
        try:
            answered = admitted.__enter__()
        except OverloadedError:
            self.outcome.refused += 1
            if client is not None:
                self.at(self.now + 1, lambda: self._ask(client))
            return
        self._route(_Query(self.now, client, admitted, answered))

    def _route(self, query: _Query) -> None:
        """Send a query to the shorter of two queues, or keep it until there is a replica."""
        able = [one for one in self._replicas if not one.retired]
        if not able:
            self._homeless.append(query)
            return
        drawn = self._random.choice(len(able), min(2, len(able)), replace=False)
        chosen = min((able[place] for place in drawn), key=lambda one: one.load)
        chosen.waiting.append(query)
        self._begin(chosen)

    def _begin(self, replica: _Replica) -> None:
        if replica.batch or not replica.waiting:
            return
        size = min(self._model.batch, len(replica.waiting))
        replica.batch = [replica.waiting.popleft() for _ in range(size)]
        took = self._model.seconds(size)
        self.at(self.now + took, lambda: self._end(replica, took))

    def _end(self, replica: _Replica, took: float) -> None:
        if not replica.alive:  # it died with the batch, which another one has by now
            return
        done, replica.batch = replica.batch, []
        for query in done:
            query.answered(1, took / len(done))
            query.admitted.__exit__(None, None, None)
            self.outcome.seconds.append(self.now - query.came)
            self.outcome.ends.append(self.now)
            if query.client is not None:
                self._ask(query.client)
        self._begin(replica)
        if replica.retired and not replica.load:
            self._replicas.remove(replica)

    def _join(self) -> None:
        self._replicas.append(_Replica())
        self._note()
        while self._homeless:
            self._route(self._homeless.popleft())

    def _start(self) -> None:
        self._starting += 1

        def ready() -> None:
            self._starting -= 1
            self._join()

        self.at(self.now + self._model.start_s, ready)

    def _note(self) -> None:
        self.outcome.replicas.append((self.now, sum(not one.retired for one in self._replicas)))

    def _scale(self) -> None:
        """Start or retire replicas, where the mean load has wanted it for as long as the settings say."""
        scaling = self._model.autoscaling
        assert scaling is not None
        self._under_way.append(self._admission.queries)
        mean = sum(self._under_way) / len(self._under_way)
        wanted = math.ceil(mean / scaling.target_ongoing_requests)
        wanted = min(max(wanted, scaling.min_replicas), scaling.max_replicas)
        able = [one for one in self._replicas if not one.retired]
        have = len(able) + self._starting
        direction = (wanted > have) - (wanted < have)
        self._wants_since = {direction: self._wants_since.get(direction, self.now)}
        delay = scaling.upscale_delay_s if direction > 0 else scaling.downscale_delay_s
        if direction and self.now - self._wants_since[direction] >= delay:
            if direction > 0:
                for _ in range(wanted - have):
                    self._start()
            else:
                self._retire(able[: max(0, min(have - wanted, len(able) - 1))])
            self._wants_since = {}
        if self.now < self._until:
            self.at(self.now + TICK_S, self._scale)

    def _retire(self, replicas: Sequence[_Replica]) -> None:
        for one in replicas:
            one.retired = True
            if not one.load:
                self._replicas.remove(one)
        self._note()


def calibrated() -> Model:
    """Return the model of `retexpan+lm-rerank` as measured, where a query waits for one other at most."""
    return Model(measured.ALONE.value, BATCH / measured.RERANK_RATE.value, max_wait_s=measured.ALONE.value)


def _predicted(model: Model, rate: float, seconds: float) -> tuple[Outcome, Outcome]:
    """Return what comes of such a rate when a replica dies, and when replicas follow the load."""
    arrivals = poisson(rate, seconds).tolist()
    dying = Simulation(model)
    dying.arrivals(arrivals)
    dying.kill(seconds / 2)
    growing = Simulation(model._replace(replicas=1, autoscaling=Autoscaling(max_replicas=2 * model.replicas)))
    growing.arrivals(arrivals)
    return dying.run(seconds), growing.run(seconds)


def _row(name: str, outcome: Outcome, told: str) -> list[str]:
    cells = [f"{outcome.percentile(q):.2f}" for q in (50, 99, 100)]
    return [name, str(len(outcome.seconds)), str(outcome.refused), *cells, told]


def main(
    rate: Annotated[float, typer.Option(min=0.01, help="Ask so many queries a second.")] = 12.0,
    replicas: Annotated[int, typer.Option(min=1, help="Begin with so many replicas.")] = 5,
    seconds: Annotated[float, typer.Option(min=10, help="Simulate so long.")] = 600.0,
) -> None:
    """Predict what was measured, then what was not: a replica that dies, and autoscaling."""
    own = calibrated()
    crowd = Simulation(own._replace(max_wait_s=600))
    crowd.clients(16)
    capacity = crowd.run(seconds).rate(seconds)
    twice = Simulation(own)
    twice.arrivals(poisson(2 * capacity, seconds).tolist())
    overload = twice.run(seconds)
    p99 = overload.percentile(99)

    lost, grown = _predicted(own._replace(replicas=replicas, max_wait_s=5), rate, seconds)
    most = max(count for _, count in grown.replicas)

    ratio = p99 / measured.OVERLOADED_P99.value
    rows = [
        _row(
            "16 clients, one replica",
            crowd.outcome,
            f"{capacity:.2f}/s; {measured.RERANK_RATE.value:g} (given)",
        ),
        _row("twice that", overload, f"p99 {measured.OVERLOADED_P99.value:g}"),
        _row(f"{rate:g}/s, {replicas} replicas, one dies", lost, "not measured"),
        _row(f"{rate:g}/s, 1 to {2 * replicas} replicas: {most}", grown, "not measured"),
    ]
    report(
        "serving, simulated (seconds)",
        ["", "answers", "refused", "p50", "p99", "longest", "measured"],
        rows,
        name="serving_simulation",
        ratio=ratio,
        floor_ratio=1.0,
        holds=1 / BAR <= ratio <= BAR,
        capacity=capacity,
        replicas=most,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
