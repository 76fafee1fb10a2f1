"""Measure how soon an entity that was sent to a loaded service is in its answers.

Clients ask the method `default` without a pause. Meanwhile entities are sent one after the other, each with
two sentences and an attribute of its own. From the moment at which one is sent on, a query that this
attribute filters is asked again and again, until an answer holds the entity. Each is deleted after that, and
it is counted whether any later answer still holds it.

    python -m benchmarks.upsert_visibility --workspace W
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer

from benchmarks.load import Http, Sample, closed_loop, percentile
from benchmarks.report import report
from benchmarks.serving import PATH, Inputs, input_of, server, verdict
from jobs import console

BAR_S = 1.0
"""Seconds from the request to the first answer that holds it: the bar of the 95th percentile."""

LOOK_S = 0.01
"""Seconds between two looks."""

LOOKS_AFTER = 5
"""Answers to a query after a deletion was answered: none may hold the entity."""

EXAMPLES = """
  python -m benchmarks.upsert_visibility --workspace W
  python -m benchmarks.upsert_visibility --workspace W --clients 8 --replicas 2 --ingress-replicas 2
"""


class Seen(NamedTuple):
    """One entity, in seconds from when it was sent.

    Attributes:
        written: until the request was answered.
        found: until the first answer that holds it.
        deleted: that the deletion took.
        after: answers that still held it after that.
        missed: answers without it after the request was answered.
    """

    written: float
    found: float
    deleted: float
    after: int
    missed: int


async def sent_and_found(http: Http, number: int, seed: str) -> Seen:
    """Send an entity, wait until an answer holds it, and delete it."""
    name = f"Invented {number}"
    body = {
        "sentences": [f"{name} was shown last week.", f"They say that {name} is like the others."],
        "attributes": {"sent": [str(number)]},
    }
    query = {"positive": [seed], "filter": {"sent": [str(number)]}, "top_k": 5}
    asked, path = json.dumps(query).encode(), f"/v1/entities/Invented%20{number}"

    async def holds() -> bool:
        answer = await http.post(PATH, asked)
        return answer.status == 200 and name in (one["name"] for one in json.loads(answer.body)["results"])

    started = time.monotonic()
    writing = asyncio.ensure_future(http.post(path, json.dumps(body).encode(), "PUT"))
    written: list[float] = []
    writing.add_done_callback(lambda _: written.append(time.monotonic() - started))
    missed = 0
    while not await holds():
        missed += bool(written)
        if time.monotonic() > started + 60:
            raise RuntimeError(f"{name} was not found within a minute: {(await writing).body!r}")
        await asyncio.sleep(LOOK_S)
    found = time.monotonic() - started
    await writing
    begun = time.monotonic()
    await http.post(path, b"", "DELETE")
    deleted = time.monotonic() - begun
    after = sum([await holds() for _ in range(LOOKS_AFTER)])
    return Seen(written[0], found, deleted, after, missed)


async def measure(
    url: str, inputs: Inputs, clients: int, entities: int
) -> tuple[list[Seen], list[Sample], float]:
    """Return what became of each entity, the clients' answers, and the seconds."""
    names, samples, stop = inputs.bundle.vocabulary.names, list[Sample](), asyncio.Event()
    with closing(Http(url)) as http:

        async def ask(number: int) -> tuple[float, str]:
            answer = await http.post(PATH, inputs.body(number % len(inputs.queries), "default"))
            return time.monotonic(), "ok" if answer.status == 200 else f"{answer.status}"

        load = asyncio.ensure_future(closed_loop(ask, clients, stop, samples))
        await asyncio.sleep(2)
        started = time.monotonic()
        seen = [await sent_and_found(http, n, names[n % len(names)]) for n in range(entities)]
        seconds = time.monotonic() - started
        stop.set()
        await load
    return seen, samples, seconds


def main(
    workspace: Annotated[Path, typer.Option(help="Whose current bundle has an encoder.")],
    port: Annotated[int, typer.Option(help="Where to serve.")] = 8200,
    clients: Annotated[int, typer.Option(help="That ask without a pause.")] = 4,
    entities: Annotated[int, typer.Option(help="To send.")] = 100,
    replicas: Annotated[int, typer.Option(help="Of the stages.")] = 1,
    ingress_replicas: Annotated[int, typer.Option(help="Of the ingress.")] = 1,
) -> None:
    """Measure from the request to the first answer."""
    options = (f"--replicas={replicas}", f"--ingress-replicas={ingress_replicas}", "--set=num_cpus=0.2")
    with input_of(workspace) as bundle:
        root = bundle.folder.parent.parent
        with server(root, port, "--methods=default", "--set=max_wait_s=600", *options) as running:
            inputs = Inputs(bundle)
            seen, samples, seconds = asyncio.run(measure(running.url, inputs, clients, entities))
    show(seen, samples, seconds, f"{len(bundle.vocabulary):,} entities, {clients} clients")


def show(seen: Sequence[Seen], samples: Sequence[Sample], seconds: float, about: str) -> None:
    """Print the table and the figures."""
    values = {kind: np.array([getattr(one, kind) for one in seen]) for kind in Seen._fields}
    rows = []
    for kind, words in (
        ("written", "the request is answered"),
        ("found", "the first answer holds it"),
        ("deleted", "its deletion is answered"),
    ):
        p50, p95 = np.percentile(values[kind], [50, 95])
        rows.append([words, f"{1e3 * p50:.0f}", f"{1e3 * p95:.0f}", f"{1e3 * values[kind].max():.0f}"])
    p50, p95 = percentile(samples, 50), percentile(samples, 95)
    rows.append(["a query of the clients", f"{1e3 * p50:.0f}", f"{1e3 * p95:.0f}", ""])
    found, after, missed = values["found"], int(values["after"].sum()), int(values["missed"].sum())
    wrong = sum(not sample.ok for sample in samples)
    p95 = float(np.percentile(found, 95))
    holds = p95 < BAR_S and not after and not wrong
    rate = len(samples) / seconds
    report(
        f"{len(seen)} entities sent to {about} ({rate:.0f} queries/s): milliseconds until. Answers that held "
        f"one after its deletion: {after}; without one after it was written: {missed}. {verdict(holds)}",
        ["", "median", "95 %", "most"],
        rows,
        name="upsert_visibility",
        ratio=BAR_S / p95,
        floor_ratio=p95 / float(np.percentile(values["written"], 95)),
        found_p50_s=float(np.median(found)),
        found_p95_s=p95,
        written_p50_s=float(np.median(values["written"])),
        after_deletion=after,
        missed=missed,
        failed=wrong,
        holds=holds,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
