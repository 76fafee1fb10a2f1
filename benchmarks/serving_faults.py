"""Count queries lost while replicas die and while bundles change, under load.

Eight clients ask without a pause, four by a quick method and four by one with a language model. Each
deployment of a graph with a deployment for each stage loses a replica in turn (SIGKILL), and load goes on
until it is replaced: with two replicas of each, and with one, where queries have to wait for it. An answer
is lost if it is not 200 or not the ranking that one process gives. No query may be. A replica of the ingress
takes the connections that it holds with it, which only a caller can mend: plain HTTP is told for what it is,
and the bar is that of :class:`serve.client.Client`.

Then the pointer goes to and fro between two bundles of the same names with other vectors, ten times. No
query may fail, and none may be answered from both: each answer must be the ranking that one process gives
with the bundle that the answer names.

    python -m benchmarks.serving_faults
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import torch
import typer

from benchmarks.load import Ask, Http, Response, Sample, closed_loop, percentile
from benchmarks.report import report
from benchmarks.serving import OTHER, Inputs, Judge, Server, asker, input_of, server, shuffled_bundle, verdict
from engine.storage.bundle import Bundle
from engine.storage.publishing import point_to
from engine.storage.workspace import Workspace
from jobs import console
from serve.client import Client, ServiceError
from serve.graph.plan import plan, served_methods
from serve.settings import ServeSettings

METHODS = ("default", "retexpan+lm-rerank")
CLIENTS = 4
"""Clients of each method."""

STEADY_S = 2.0
STEADY = CLIENTS + 1
"""Seconds, and answers by each method, after which load is steady: what was under way is answered."""
BACK_S = 120.0
"""Time for a replica to be replaced, or for a bundle to be taken."""
BEFORE_S = 10.0
"""Time of load before the first swap, for comparison."""

# Nothing is refused: what is lost is lost through a fault. Every query has time for a restart.
OPTIONS = ("--per-stage", "--set=num_cpus=0.2", "--set=max_wait_s=600", "--set=timeout_s=120")
SWAP_OPTIONS = ("--set=bundle_poll_interval_s=0.5", "--set=ingress_replicas=2")

EXAMPLES = """
  python -m benchmarks.serving_faults
  python -m benchmarks.serving_faults --workspace W --swaps 4
"""


class Fault(NamedTuple):
    """The answers while one replica was killed and replaced.

    Args:
        name: of the deployment.
        samples: answered in that time.
        back_s: seconds until it was replaced and every stage answered.
        bar: whether no query may be lost.
    """

    name: str
    samples: list[Sample]
    back_s: float
    bar: bool = True

    @property
    def lost(self) -> list[Sample]:
        """The samples that are no right answers."""
        return [sample for sample in self.samples if not sample.ok]

    @property
    def row(self) -> list[str]:
        """The cells of the table."""
        told = ", ".join(f"{n} {what}" for what, n in Counter(s.verdict for s in self.lost).items())
        longest = max(sample.seconds for sample in self.samples)
        counts = [str(len(self.samples)), str(len(self.lost)), told]
        last = ["0", verdict(not self.lost)] if self.bar else ["", ""]
        return [self.name, *counts, f"{longest:.2f}", f"{self.back_s:.1f}", *last]


class Swap(NamedTuple):
    """Seconds from the pointer's move to the first answer of the new bundle, and to the last of the old."""

    first_s: float
    last_s: float


Load = dict[str, list[Sample]]
"""The samples so far, by method."""


@asynccontextmanager
async def under_load(asks: Mapping[str, Ask]) -> AsyncIterator[Load]:
    """Let clients of every method ask while the block runs; yields the samples so far."""
    stop = asyncio.Event()
    load: Load = {method: [] for method in asks}
    async with asyncio.TaskGroup() as group:
        for method, ask in asks.items():
            group.create_task(closed_loop(ask, CLIENTS, stop, load[method]))
        try:
            yield load
        finally:
            stop.set()


def since(load: Load, first: Mapping[str, int]) -> list[Sample]:
    """Return the samples after so many of each method."""
    return [sample for method, samples in load.items() for sample in samples[first[method] :]]


def counts(load: Load) -> dict[str, int]:
    """Return how many samples there are of each method."""
    return {method: len(samples) for method, samples in load.items()}


async def until(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something.

    Raises:
        TimeoutError: it did not come.
    """
    end = time.monotonic() + BACK_S
    while not await holds():
        if time.monotonic() > end:
            raise TimeoutError(f"{what} did not come within {BACK_S:g} s")
        await asyncio.sleep(0.1)


async def steady(load: Load) -> None:
    """Wait until load is steady."""
    first = counts(load)
    await asyncio.sleep(STEADY_S)

    async def enough() -> bool:
        return all(len(load[method]) >= first[method] + STEADY for method in load)

    await until("answers", enough)


async def killed(running: Server, deployment: str, load: Load, bar: bool = True) -> Fault:
    """Kill a replica under load, and wait until it is replaced and load is steady again."""
    await steady(load)
    first = counts(load)
    before = running.replicas(deployment)
    pids = {process.pid for process in before}
    before[0].kill()
    started = time.monotonic()

    async def replaced() -> bool:
        there = await asyncio.to_thread(running.replicas, deployment)
        if len(there) < len(before) or not {process.pid for process in there} - pids:
            return False
        try:
            return (await asyncio.to_thread(httpx.get, f"{running.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    await until(f"a new replica of {deployment}", replaced)
    back_s = time.monotonic() - started
    await steady(load)
    return Fault(deployment, since(load, first), back_s, bar)


async def stages_killed(running: Server, inputs: Inputs, deployments: Sequence[str]) -> list[Fault]:
    """Kill a replica of each deployment behind the ingress, one after the other."""
    with closing(Http(running.url)) as http:
        async with under_load(askers(http, inputs, Judge(inputs))) as load:
            return [await killed(running, deployment, load) for deployment in deployments]


async def ingress_killed(running: Server, inputs: Inputs) -> list[Fault]:
    """Kill a replica of the ingress, asked by plain HTTP and by our client."""
    judge = Judge(inputs)
    with closing(Http(running.url)) as http:
        async with under_load(askers(http, inputs, judge)) as load:
            plain = await killed(running, "Ingress", load, bar=False)
    with Client(running.url, timeout=120) as client, ThreadPoolExecutor(CLIENTS * len(METHODS)) as pool:
        asks = {method: client_asker(client, pool, inputs, method, judge) for method in METHODS}
        async with under_load(asks) as load:
            mended = await killed(running, "Ingress", load)
    return [plain._replace(name="Ingress, plain HTTP"), mended._replace(name="Ingress, our client")]


Judging = Callable[[int, str, Response], str]


def askers(http: Http, inputs: Inputs, judge: Judging) -> dict[str, Ask]:
    """Return what asks by each method."""
    return {method: asker(http, inputs, [method], judge) for method in METHODS}


def client_asker(client: Client, pool: ThreadPoolExecutor, inputs: Inputs, method: str, judge: Judge) -> Ask:
    """Return what asks through the client, in threads."""

    def call(place: int) -> str:
        query = inputs.queries[place]
        try:
            answer = client.expand(query.positive, query.negative, method=method, top_k=query.top_k)
        except ServiceError as error:
            return f"{error.status} {error.code}"
        return judge.of_answer(place, method, answer)

    async def ask(number: int) -> tuple[float, str]:
        place = number % len(inputs.queries)
        told = await asyncio.get_running_loop().run_in_executor(pool, call, place)
        return time.monotonic(), told

    return ask


Named = dict[str, list[tuple[float, str]]]
"""Time and bundle of each answer, by method."""


async def swapped(running: Server, both: Sequence[Inputs], swaps: int) -> tuple[Load, Load, list[Swap]]:
    """Move the pointer to and fro under load; returns samples before and meanwhile, and every swap."""
    judge = Judge(*both)
    named: Named = {method: [] for method in METHODS}

    def noting(place: int, method: str, response: Response) -> str:
        told = judge(place, method, response)
        if response.status == 200:
            named[method].append((time.monotonic(), json.loads(response.body)["bundle"]))
        return told

    workspace = Workspace.open(both[0].bundle.folder.parent.parent)
    found: list[Swap] = []
    with closing(Http(running.url)) as http:
        async with under_load(askers(http, both[0], noting)) as load:
            await steady(load)
            first = counts(load)
            await asyncio.sleep(BEFORE_S)
            middle = counts(load)
            for number in range(swaps):
                found.append(await taken(workspace, both[(number + 1) % 2].bundle.id, named))
    before = {method: samples[first[method] : middle[method]] for method, samples in load.items()}
    return before, {method: samples[middle[method] :] for method, samples in load.items()}, found


async def taken(workspace: Workspace, bundle_id: str, named: Named) -> Swap:
    """Move the pointer, and wait until the latest answers by every method are of the new bundle."""
    await asyncio.to_thread(point_to, workspace, bundle_id)
    moved = time.monotonic()

    def after(method: str) -> list[tuple[float, str]]:
        return [one for one in named[method] if one[0] >= moved]

    async def all_new() -> bool:
        latest = [[bundle for _, bundle in after(method)[-STEADY:]] for method in named]
        return all(some == [bundle_id] * STEADY for some in latest)

    await until(f"an answer of the bundle {bundle_id}", all_new)
    since = [one for method in named for one in after(method)]
    new = min(when for when, one in since if one == bundle_id)
    old = max((when for when, one in since if one != bundle_id), default=moved)
    return Swap(new - moved, old - moved)


def hops_of(bundle: Bundle) -> list[str]:
    """Return the deployments that the methods go through."""
    settings = ServeSettings(workspace=".", methods=METHODS, fused=False)
    laid_out = plan(bundle, served_methods(bundle, METHODS), settings)
    return list(dict.fromkeys(name for method in METHODS for name, _ in laid_out.calls(method)))


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    port: Annotated[int, typer.Option(help="Where to serve.")] = 8210,
    swaps: Annotated[int, typer.Option(min=1, help="Moves of the pointer.")] = 10,
    kills: Annotated[int, typer.Option(min=0, help="Deployments that lose a replica, at most.")] = 100,
) -> None:
    """Count what is lost while replicas die and bundles change."""
    torch.set_num_threads(1)
    faults: dict[str, list[Fault]] = {}
    with input_of(workspace) as bundle:
        store = Workspace.open(bundle.folder.parent.parent)
        both = [Inputs(bundle), Inputs(shuffled_bundle(store, bundle))]
        point_to(store, bundle.id)
        for inputs in both:
            inputs.expect(METHODS)
        check_different(both)
        root, chosen = Path(store.root.path), f"--methods={','.join(METHODS)}"
        deployments = hops_of(bundle)[:kills]
        with server(root, port, chosen, *OPTIONS, "--replicas=1") as running:
            faults["1 replica"] = asyncio.run(stages_killed(running, both[0], deployments))
        with server(root, port, chosen, *OPTIONS, *SWAP_OPTIONS, "--replicas=2") as running:
            faults["2 replicas"] = asyncio.run(stages_killed(running, both[0], deployments))
            faults["2 replicas"] += asyncio.run(ingress_killed(running, both[0]))
            before, during, times = asyncio.run(swapped(running, both, swaps))
    show(faults, before, during, times)


def check_different(both: Sequence[Inputs]) -> None:
    """Check that the bundles answer differently: else nobody could tell a mixed answer."""
    for method in METHODS:
        for place in range(len(both[0].queries)):
            one, other = (set(inputs.expected(method, place).ranking.ids.tolist()) for inputs in both)
            if one == other:
                raise AssertionError(f"{method}: both bundles answer query {place} alike")


def show(faults: Mapping[str, list[Fault]], before: Load, during: Load, times: Sequence[Swap]) -> None:
    """Print the table and the figures."""
    rows = [
        [f"{layout}: {fault.row[0]}", *fault.row[1:]] for layout, some in faults.items() for fault in some
    ]
    swaps = Fault(f"{len(times)} swaps of the bundle", since(during, dict.fromkeys(during, 0)), 0.0)
    first, last = max(swap.first_s for swap in times), max(swap.last_s for swap in times)
    rows.append(swaps._replace(back_s=first).row)
    mixed = sum(sample.verdict == OTHER for sample in swaps.lost)
    every = [fault for some in faults.values() for fault in some]
    lost = {bar: sum(len(fault.lost) for fault in every if fault.bar == bar) for bar in (True, False)}
    p99 = {m: [percentile(load[m], 99) for load in (before, during)] for m in METHODS}
    told = "; ".join(f"{m} {one[0]:.2f} s, with swaps {one[1]:.2f}" for m, one in p99.items())
    clients = CLIENTS * len(METHODS)
    report(
        f"{clients} clients while a replica is killed, and while bundles change (the last of an old one "
        f"{last:.1f} s after the swap); 99th percentile: {told}",
        ["", "answers", "lost", "what came", "longest, s", "back after, s", "bar", ""],
        rows,
        name="serving_faults",
        ratio=min(one[0] / one[1] for one in p99.values()),
        lost=lost[True],
        lost_plain_ingress=lost[False],
        swaps=len(times),
        swaps_failed=len(swaps.lost) - mixed,
        swaps_mixed=mixed,
        swap_first_s=first,
        swap_last_old_s=last,
        **{
            f"p99_{kind}_{m}": value
            for m, one in p99.items()
            for kind, value in zip(("before", "swaps"), one, strict=True)
        },
        holds=lost[True] == len(swaps.lost) == 0,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
