"""Count what a batch expansion loses when a node dies in the middle, and what it takes longer.

On a cluster of three nodes of this machine a table is expanded, again and again. In each run one of the nodes
beside the head dies when 30 % of the parts are written; it does not come back before the run ends. No query
may be missing, none may come twice, and the bytes must be those of an undisturbed run. An undisturbed run of
three nodes that loses one of them after 30 % takes 0.3 + 0.7 * 3/2 of its time, if the nodes are machines of
their own: a run may take 1.5 times that. Times of disturbed and undisturbed runs are taken in turn.

    python -m benchmarks.batch_faults --runs 20
"""

from __future__ import annotations

import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from benchmarks.report import report
from benchmarks.serving import input_of, verdict
from cluster.crashing.commands import Running, seedset
from cluster.crashing.events import Log
from cluster.crashing.prepared import question
from cluster.crashing.work import Batch, read_output
from cluster.local import LocalCluster, local_cluster
from engine.storage.bundle import Bundle
from jobs import console

NODES, CPUS = 3, 2
KILLED_AT = 0.3
BAR = 1.5

EXAMPLES = """
  python -m benchmarks.batch_faults
  python -m benchmarks.batch_faults --workspace W --runs 20 --queries 20000
"""


class Table(NamedTuple):
    """A table that is expanded: the words of the command, and the ids of its queries."""

    words: Sequence[object]
    ids: Sequence[str]
    parts: int


class Outcome(NamedTuple):
    """A run.

    Args:
        seconds: of the command.
        missing, twice: queries.
        differ: parts that are not an undisturbed run's bytes.
        again: parts that were whole and were written again.
        failed: what a command that failed wrote.
    """

    seconds: float
    missing: int
    twice: int
    differ: int
    again: int
    failed: str = ""


def write_table(bundle: Bundle, folder: Path, queries: int, parts: int, method: str) -> Table:
    """Write seeded queries; return how they are expanded."""
    drawn, names = random.Random(7), list(bundle.vocabulary.names)
    asked = [question(f"q{number:06}", names, drawn) for number in range(queries)]
    file, workspace = folder / "queries.jsonl", bundle.folder.parent.parent
    file.write_text("".join(json.dumps(one.row()) + "\n" for one in asked), encoding="utf-8")
    words = ["expand", "--workspace", workspace, "--queries", file, "--method", method]
    return Table([*words, "--part-size", queries // parts], [one.id for one in asked], parts)


def expanded(
    table: Table, output: Path, log: Log, due: dict[str, str], victim: tuple[LocalCluster, int] | None = None
) -> tuple[Outcome, dict[str, str]]:
    """Expand the table into a new folder; with a victim, that node dies on the way."""
    batch, over = Batch([], output.parent, Running("expand", log)), threading.Event()

    def follow() -> None:
        waiting = victim
        while not over.wait(0.05):
            batch.look(output)
            if waiting and len(list(output.glob("part-*.parquet"))) >= KILLED_AT * table.parts:
                cluster, place = waiting
                cluster.kill_node(place)
                waiting = None

    watcher = threading.Thread(target=follow)
    watcher.start()
    started = time.monotonic()
    ended, _ = batch.running.run(seedset(*table.words, "--output", output))
    seconds = time.monotonic() - started
    over.set()
    watcher.join()
    queries, digests = read_output(output)
    shutil.rmtree(output, ignore_errors=True)
    differ = sum(digests.get(name) != digest for name, digest in due.items())
    outcome = Outcome(
        seconds=seconds,
        missing=len(set(table.ids) - set(queries)),
        twice=len(queries) - len(set(queries)),
        differ=differ,
        again=len(set(batch.remade)),
        failed=ended.output if ended.status else "",
    )
    return outcome, digests


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Runs with a node that dies.")] = 20,
    queries: Annotated[int, typer.Option(min=40, help="Queries of the table.")] = 20_000,
    parts: Annotated[int, typer.Option(min=10, help="Parts of the output.")] = 40,
    method: Annotated[str, typer.Option(help="Method of the expansion.")] = "retexpan",
    seed: Annotated[int, typer.Option(help="Seed of which node dies.")] = 0,
) -> None:
    """Count what a batch loses when a node dies at 30 %."""
    drawn = random.Random(seed)
    with (
        tempfile.TemporaryDirectory(prefix="batch-faults-") as name,
        input_of(workspace) as bundle,
        local_cluster(NODES, CPUS) as cluster,
        cluster.connected(),
        Log(Path(name) / "events.jsonl") as log,
    ):
        folder = Path(name)
        table = write_table(bundle, folder, queries, parts, method)
        first, due = expanded(table, folder / "first", log, {})
        if first.failed or first.missing:
            raise RuntimeError(f"the undisturbed run failed: {first}")
        calm, hit = [first], []
        for number in range(runs):
            victim = (cluster, drawn.randrange(NODES - 1))
            hit.append(expanded(table, folder / f"hit-{number}", log, due, victim)[0])
            cluster.add_node()
            if number % 5 == 4:
                calm.append(expanded(table, folder / f"calm-{number}", log, due)[0])
    show(calm, hit, queries)


def show(calm: Sequence[Outcome], hit: Sequence[Outcome], queries: int) -> None:
    """Print the table and the figures."""
    share = KILLED_AT + (1 - KILLED_AT) * NODES / (NODES - 1)
    undisturbed = statistics.median(one.seconds for one in calm)
    disturbed = [one.seconds for one in hit]
    ratio = statistics.median(disturbed) / (share * undisturbed)
    worst = max(disturbed) / (share * undisturbed)
    lost = sum(one.missing + one.twice + one.differ for one in hit)
    failed = [one.failed for one in hit if one.failed]
    rows = []
    for label, some in (("undisturbed", calm), ("a node dies at 30 %", hit)):
        counts = [sum(getattr(one, f) for one in some) for f in ("missing", "twice", "differ", "again")]
        seconds = statistics.median(one.seconds for one in some)
        rows.append([label, str(len(some)), *map(str, counts), f"{seconds:.1f}"])
    for text in failed:
        print(f"FAILED: {text}")
    report(
        f"{queries} queries on {NODES} nodes: {ratio:.2f} times the share that the nodes left would take "
        f"(worst {worst:.2f}, bar {BAR}: {verdict(worst <= BAR)})",
        ["", "runs", "missing", "twice", "other parts", "whole parts made again", "median, s"],
        rows,
        name="batch_faults",
        ratio=1 / ratio,
        worst=worst,
        lost=lost,
        again=sum(one.again for one in hit),
        failed=len(failed),
        holds=lost == 0 and not failed and worst <= BAR,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
