"""Send twice as many queries as the service can answer: the accepted stay quick, the rest is shed at once.

For each method: a client alone, then 16 that ask without a pause, whose rate is the capacity. Then requests
come at random moments (Poisson), twice as many as the capacity, whether or not those before were answered;
each is timed from the moment at which it was due. Accepted are answers of 200. Everything else must be a 503
with ``Retry-After`` and the service's error. The bars: accepted queries take at most three times what the
slowest take alone (99th percentile), and the memory of all processes of the service stays as it is. Where a
stage is what limits, they are also at least 0.8 of the capacity: refusing must not eat the machine. Where
HTTP itself is what limits, a refusal costs a good part of an answer, and the share is only shown.

How long a query may wait for its turn is what an operator promises, and so a setting, ``max_wait_s``. Here it
is what a query alone takes: a query waits so long, and then takes what a batch takes.

    python -m benchmarks.serving_overload
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

from benchmarks.load import (
    Http,
    Response,
    Sample,
    closed_loop_for,
    open_loop,
    percentile,
    poisson,
    steady_rate,
)
from benchmarks.report import report
from benchmarks.serving import Inputs, Server, asker, generative, input_of, server, verdict
from jobs import console

METHODS = ("retexpan+lm-rerank", "retexpan")
CLIENTS = 16
TIMES = 2.0
"""Offered load, in multiples of the capacity."""
WAITS = 1.0
"""Allowed wait, in multiples of what a query alone takes."""

BARS = {"p99": 3.0, "accepted": 0.8, "memory": 1.05}

SETTLED_S = 5.0
"""Seconds after which memory is watched: by then every path was taken."""
CALM = "--set=max_wait_s=600"

EXAMPLES = """
  python -m benchmarks.serving_overload
  python -m benchmarks.serving_overload --seconds 20 --calm-seconds 5
"""


class Calm(NamedTuple):
    """The service's times without load, in seconds, and its capacity in queries a second."""

    p50: float
    p99: float
    capacity: float


class Loaded(NamedTuple):
    """The service under too much load.

    Args:
        samples: by their verdicts "ok", "shed", or what else came.
        seconds: in which they came.
        memory: bytes of all processes, (second, bytes), from the beginning on.
        client: share of a core that the generator took.
    """

    samples: list[Sample]
    seconds: float
    memory: list[tuple[float, int]]
    client: float

    @property
    def counts(self) -> Counter[str]:
        """Return how many samples there are of each verdict."""
        return Counter(sample.verdict for sample in self.samples)

    @property
    def other(self) -> int:
        """Return how many were neither answered nor shed."""
        return len(self.samples) - self.counts["ok"] - self.counts["shed"]

    @property
    def growth(self) -> float:
        """Return the memory of the last third over that of the first, once it is settled."""
        settled = [size for second, size in self.memory if second >= min(SETTLED_S, self.seconds / 3)]
        third = max(1, len(settled) // 3)
        return float(np.mean(settled[-third:]) / np.mean(settled[:third]))


def judge(place: int, method: str, response: Response) -> str:
    """Return "ok", "shed" for a refusal that says when to come again, or what came."""
    if response.status == 200:
        return "ok"
    if response.status != 503 or not response.headers.get("retry-after", "").isdecimal():
        return f"status {response.status}"
    error = json.loads(response.body)["error"]
    told = error["code"] == "overloaded" and set(error) == {"code", "message", "field", "suggestions"}
    return "shed" if told else f"status 503 {error['code']}"


async def calm(url: str, inputs: Inputs, method: str, seconds: float) -> Calm:
    """Ask alone, then with many."""
    with closing(Http(url)) as http:
        ask = asker(http, inputs, [method], judge)
        await closed_loop_for(ask, 1, seconds / 5)
        alone = await closed_loop_for(ask, 1, seconds)
        crowd = await closed_loop_for(ask, CLIENTS, 2 * seconds)
    return Calm(percentile(alone, 50), percentile(alone, 99), steady_rate(crowd, CLIENTS))


async def loaded(running: Server, inputs: Inputs, method: str, rate: float, seconds: float) -> Loaded:
    """Ask more than it can answer, and watch the memory."""
    memory: list[tuple[float, int]] = []

    async def watch() -> None:
        started = time.monotonic()
        while True:
            memory.append((time.monotonic() - started, await asyncio.to_thread(running.rss)))
            await asyncio.sleep(1)

    with closing(Http(running.url)) as http:
        ask = asker(http, inputs, [method], judge)
        # The service learns what a query takes from those that it answers.
        for number in range(len(inputs.queries)):
            await ask(number)
        watching = asyncio.create_task(watch())
        cpu, started = time.process_time(), time.perf_counter()
        samples = await open_loop(ask, poisson(rate, seconds))
        client = (time.process_time() - cpu) / (time.perf_counter() - started)
        watching.cancel()
    return Loaded(samples, seconds, memory, client)


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    port: Annotated[int, typer.Option(help="Where to serve.")] = 8220,
    seconds: Annotated[float, typer.Option(help="Seconds of too much load, each method.")] = 60,
    calm_seconds: Annotated[float, typer.Option(help="Seconds of one client; of many: twice.")] = 20,
) -> None:
    """Measure the service under twice the load that it can take."""
    torch.set_num_threads(1)
    before: dict[str, Calm] = {}
    found: dict[str, Loaded] = {}
    with input_of(workspace) as bundle:
        inputs, root = Inputs(bundle), bundle.folder.parent.parent
        options = [f"--methods={','.join(METHODS)}", "--set=num_cpus=0.2"]
        with server(root, port, *options, CALM) as running:
            for method in METHODS:
                before[method] = asyncio.run(calm(running.url, inputs, method, calm_seconds))
        for method, alone in before.items():
            with server(root, port, *options, f"--set=max_wait_s={WAITS * alone.p50:.4f}") as running:
                rate = TIMES * alone.capacity
                found[method] = asyncio.run(loaded(running, inputs, method, rate, seconds))
    show(before, found)


def show(before: dict[str, Calm], found: dict[str, Loaded]) -> None:
    """Print the table, methods side by side, and the figures."""
    figures = {method: figures_of(before[method], found[method]) for method in before}
    labels = {
        "p50_alone": ("alone: median, ms", ""),
        "p99_alone": ("alone: 99th percentile, ms", ""),
        "capacity": (f"capacity, {CLIENTS} clients, queries/s", ""),
        "offered": ("offered, queries/s", ""),
        "accepted": ("accepted, queries/s", ""),
        "accepted_ratio": ("accepted / capacity", f"≥ {BARS['accepted']}, generative"),
        "p50": ("accepted: median, ms", ""),
        "p99": ("accepted: 99th percentile, ms", ""),
        "p99_ratio": ("that / alone", f"≤ {BARS['p99']}"),
        "p99_over_p50": ("that / median alone", ""),
        "shed": ("shed with 503", ""),
        "other": ("anything else", "0"),
        "memory": ("memory, last third / first", f"≤ {BARS['memory']}"),
        "late": ("generator late, 99th percentile, ms", ""),
        "client": ("generator's share of a core", ""),
    }
    rows = []
    for key, (label, bar) in labels.items():
        met = [verdict(holds(m, key, figures[m][key])) if barred(m, key) else "" for m in figures]
        rows.append(
            [label, *(f"{figures[m][key]:.4g} {told}" for m, told in zip(figures, met, strict=True)), bar]
        )
    worst = max(one["p99_ratio"] for one in figures.values())
    others = ", ".join(f"{n} {what}" for one in found.values() for what, n in one.counts.items())
    report(
        f"{TIMES:g} times the capacity for {next(iter(found.values())).seconds:g} s, one by one ({others})",
        ["", *figures, "bar"],
        rows,
        name="serving_overload",
        ratio=1 / worst,
        floor_ratio=worst,
        **{f"{method}_{key}": value for method, one in figures.items() for key, value in one.items()},
        holds=all(holds(m, key, value) for m, one in figures.items() for key, value in one.items()),
    )


def figures_of(alone: Calm, under: Loaded) -> dict[str, Any]:
    """Return what the table shows of one method."""
    # What is answered after the load has ended was not answered under it.
    end = min(sample.due for sample in under.samples) + under.seconds
    accepted = sum(sample.ok and sample.end <= end for sample in under.samples) / under.seconds
    p99 = percentile(under.samples, 99)
    return {
        "p50_alone": 1e3 * alone.p50,
        "p99_alone": 1e3 * alone.p99,
        "capacity": alone.capacity,
        "offered": len(under.samples) / under.seconds,
        "accepted": accepted,
        "accepted_ratio": accepted / alone.capacity,
        "p50": 1e3 * percentile(under.samples, 50),
        "p99": 1e3 * p99,
        "p99_ratio": p99 / alone.p99,
        "p99_over_p50": p99 / alone.p50,
        "shed": under.counts["shed"],
        "other": under.other,
        "memory": under.growth,
        "late": 1e3 * float(np.percentile([sample.late for sample in under.samples], 99)),
        "client": under.client,
    }


def barred(method: str, key: str) -> bool:
    """Return whether a figure of a method has a bar."""
    return key in ("p99_ratio", "memory", "other") or (key == "accepted_ratio" and generative(method))


def holds(method: str, key: str, value: float) -> bool:
    """Return whether a figure meets its bar, if it has one."""
    if not barred(method, key):
        return True
    if key == "accepted_ratio":
        return value >= BARS["accepted"]
    return value <= {"p99_ratio": BARS["p99"], "memory": BARS["memory"], "other": 0.0}[key]


if __name__ == "__main__":
    console.run(main, EXAMPLES)
