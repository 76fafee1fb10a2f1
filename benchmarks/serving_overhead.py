"""Measure what HTTP and Ray Serve add to a query, against one process and a graph that computes nothing.

One client asks one query after the other; each is asked three times, in an order drawn anew: in this
process, by an empty graph of as many hops (:mod:`benchmarks.empty_graph`, on the same cluster), and by the
service. The bar of a median is 1.25 times the sum of the first two. The graph is measured with all stages
in one deployment, and with a deployment for each stage. Then 16 clients ask at once, against batches of 16
in this process. PyTorch has one thread here and in every replica. Answers are checked against ours.

    python -m benchmarks.serving_overhead
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.empty_graph import PREFIX
from benchmarks.load import Http, Response, closed_loop_for, steady_rate
from benchmarks.report import report
from benchmarks.serving import PATH, Inputs, Judge, asker, generative, input_of, server, verdict
from engine.methods import METHODS
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from jobs import console

BAR = 1.25
"""The service may take so many times what one process and an empty graph take together."""
RATE_BAR = 0.7
"""It must answer so much of what one process answers in batches."""

REPEATS = {
    "retexpan": 200,
    "default": 200,
    "retexpan+lm-rerank": 16,
    "default+lm-rerank": 16,
    "genexpan": 3,
    "retexpan+genexpan": 3,
}
"""Measurements of each method: many where it is quick."""

WARM_UP = 3
CLIENTS = 16
CROWDED = "retexpan+lm-rerank"

# What limits a crowd is not measured here.
OPTIONS = ("--set=num_cpus=0.2", "--set=max_wait_s=600", "--set=timeout_s=600")

EXAMPLES = """
  python -m benchmarks.serving_overhead
  python -m benchmarks.serving_overhead --workspace W --share 0.2
"""

Medians = dict[str, float]


async def latencies(http: Http, inputs: Inputs, method: str, hops: int, repeats: int) -> Medians:
    """Return the median seconds of one method's queries: "local", "empty", "served", "stages" (the seconds
    that a served answer tells), and "client" (of the processor, here, for a served one)."""
    random, judge = Random(0), Judge(inputs)
    seconds: dict[str, list[float]] = {}
    answers: list[Response] = []

    def note(kind: str, value: float) -> None:
        seconds.setdefault(kind, []).append(value)

    async def measure(kind: str, place: int) -> None:
        body = inputs.body(place, method)
        cpu, started = time.process_time(), time.perf_counter()
        if kind == "local":
            inputs.answer(method, place)
        else:
            response = await http.post(PATH if kind == "served" else f"{PREFIX}/{hops}", body)
        note(kind, time.perf_counter() - started)
        if kind == "served":
            note("client", time.process_time() - cpu)
            answers.append(response)

    kinds = ["local", "empty", "served"]
    warm_up = min(WARM_UP, repeats // 2)
    for number in range(-warm_up, repeats):
        random.shuffle(kinds)
        place = number % len(inputs.queries)
        for kind in kinds:
            await measure(kind, place)
        if (told := judge(place, method, answers[-1])) != "ok":
            raise AssertionError(f"{method}: {told}: {answers[-1].body[:300]!r}")
        note("stages", sum(json.loads(answers[-1].body)["seconds"].values()))
    return {kind: float(np.median(values[warm_up:])) for kind, values in seconds.items()}


async def layout(url: str, inputs: Inputs, methods: Mapping[str, int], fused: bool) -> dict[str, Medians]:
    """Return every method's medians on one layout of the graph."""
    with closing(Http(url)) as http:
        return {
            method: await latencies(
                http, inputs, method, 1 if fused else len(METHODS[method].stages), repeats
            )
            for method, repeats in methods.items()
        }


async def crowd(url: str, inputs: Inputs, seconds: float) -> tuple[float, float, float]:
    """Return queries a second of one process and of the service, and the client's share of a core."""
    queries = [inputs.queries[i % len(inputs.queries)] for i in range(CLIENTS)]
    inputs.expect([CROWDED])
    here: list[float] = []
    there: list[float] = []
    used = wall = 0.0
    with closing(Http(url)) as http:
        ask = asker(http, inputs, [CROWDED], Judge(inputs))
        await closed_loop_for(ask, CLIENTS, 1)
        for _ in range(2):
            started = time.perf_counter()
            inputs.local(CROWDED)(queries)
            here.append(CLIENTS / (time.perf_counter() - started))
            cpu, started = time.process_time(), time.perf_counter()
            samples = await closed_loop_for(ask, CLIENTS, seconds / 2)
            used, wall = used + time.process_time() - cpu, wall + time.perf_counter() - started
            there.append(steady_rate(samples, CLIENTS))
    return float(np.mean(here)), float(np.mean(there)), used / wall


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    port: Annotated[int, typer.Option(help="Where to serve.")] = 8200,
    share: Annotated[float, typer.Option(help="Of the repetitions: less for a short look.")] = 1.0,
    seconds: Annotated[float, typer.Option(help="Seconds of 16 clients.")] = 40,
    threads: Annotated[int, typer.Option(help="Of PyTorch here; replicas have one.")] = 1,
) -> None:
    """Measure the service's overhead and throughput."""
    torch.set_num_threads(threads)
    found: dict[str, dict[str, Medians]] = {}
    methods = {name: max(2, round(share * repeats)) for name, repeats in REPEATS.items()}
    with input_of(workspace) as bundle:
        root, chosen = bundle.folder.parent.parent, f"--methods={','.join(methods)}"
        with server(root, port, chosen, *OPTIONS, module="benchmarks.empty_graph") as running:
            inputs = Inputs(bundle)
            found["fused"] = asyncio.run(layout(running.url, inputs, methods, True))
            rates = asyncio.run(crowd(running.url, inputs, seconds))
        with server(root, port, chosen, *OPTIONS, "--per-stage", module="benchmarks.empty_graph") as running:
            # Opened anew, as the service is: neither remembers what it scored before.
            inputs = Inputs(Bundle.open(Workspace.open(root), bundle.id))
            found["per stage"] = asyncio.run(layout(running.url, inputs, methods, False))
    show(found, rates)


def show(found: Mapping[str, Mapping[str, Medians]], rates: tuple[float, float, float]) -> None:
    """Print the table and the figures."""
    rows, ratios = [], {}
    for graph, methods in found.items():
        for method, m in methods.items():
            ratio = ratios[graph, method] = m["served"] / (m["local"] + m["empty"])
            cells = [f"{1e3 * m[kind]:.2f}" for kind in ("local", "empty", "served", "stages", "client")]
            rows.append([f"{graph}: {method}", *cells, f"{ratio:.2f}", f"{BAR}", verdict(ratio <= BAR)])
    here, there, client = rates
    kept, crowded = there / here, f"{CLIENTS} clients: {CROWDED}, queries/s"
    cells = [f"{here:.2f}", "", f"{there:.2f}", "", "", f"{kept:.2f}", f"{RATE_BAR}"]
    rows.append([crowded, *cells, verdict(kept >= RATE_BAR)])
    worst = {graph: max(r for (g, _), r in ratios.items() if g == graph) for graph in found}
    generation = {m: r for (g, m), r in ratios.items() if g == "fused" and generative(m)}
    report(
        "a query served: milliseconds (median), one client; empty: a graph without work; stages: the work, "
        f"as answers tell it; client: its processor time, {client:.1%} of a core under {CLIENTS} clients",
        ["", "in process", "empty", "served", "stages", "client", "ratio", "bar", ""],
        rows,
        name="serving_overhead",
        ratio=1 / worst["fused"],
        floor_ratio=worst["fused"],
        floor_ratio_per_stage=worst["per stage"],
        floor_ratio_generation=max(generation.values()),
        throughput_ratio=kept,
        client_share=client,
        holds=max(ratios.values()) <= BAR and kept >= RATE_BAR,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
