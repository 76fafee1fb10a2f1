"""Measure what a second node brings, and what a query costs in small and large tables.

Clusters of one and of two nodes of one core each, all on this machine and held to that core, expand the
same table and preprocess the same corpus. A command's rate is taken from its first finished part to its
last: starting Ray takes as long for one node as for two, but the second node's actor may begin some seconds
after the first one's, so that work for less than a minute says little. The machine must have two idle cores;
one node leaves one of them to the command itself and to Ray's own processes, two nodes do not. Then tables of
growing size are expanded in one process; the cost of a query is the processor time beyond that of a small
table, over the queries beyond its.

    python -m benchmarks.cluster_scaling
"""

from __future__ import annotations

import math
import random
import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer

from benchmarks.batch_faults import write_table
from benchmarks.invented import invented_names, invented_sentence, invented_word
from benchmarks.report import report
from benchmarks.serving import input_of, verdict
from cluster.crashing.commands import Running, once, seedset
from cluster.crashing.events import Log
from cluster.local import local_cluster
from engine.corpus.schema import PART_ROWS
from engine.errors import UserError
from jobs import console

BATCH_BAR, PREPROCESS_BAR, FLAT_BAR = 1.7, 1.6, 1.15
BASE = 100
"""Queries of the small table."""
TURNS = 3
"""Runs of each table, all tables in turn: what else the machine does meets all sizes alike."""
SMALL, SMALL_RUNS = 2_000, 2
"""Queries of a small table at most, and its runs a turn: a start varies by as much as its queries take."""
SENTENCES_PER_ENTITY = 40

EXAMPLES = """
  python -m benchmarks.cluster_scaling
  python -m benchmarks.cluster_scaling --queries 2000 --mentions 40000 --tables 200,400
"""


def write_corpus(folder: Path, mentions: int) -> None:
    """Write invented entities with as many sentences each, in Parquet."""
    rng = random.Random(0)
    words = [invented_word(rng) for _ in range(5_000)]
    names = invented_names(rng, words, max(1, mentions // SENTENCES_PER_ENTITY))
    folder.mkdir()
    pq.write_table(pa.table({"name": names}), folder / "entities.parquet")
    rows = [
        (name, invented_sentence(rng, words, name)) for name in names for _ in range(SENTENCES_PER_ENTITY)
    ]
    columns = {"entity": [name for name, _ in rows], "sentence": [sentence for _, sentence in rows]}
    pq.write_table(pa.table(columns), folder / "sentences.parquet")


def rate_of(parts: Sequence[Path]) -> float:
    """Return parts a second, from the first that was finished to the last.

    Raises:
        UserError: there are too few to tell.
    """
    ends = sorted(part.stat().st_mtime for part in parts)
    if len(ends) < 3:
        raise UserError(f"{len(ends)} parts tell no rate: give more --queries and --mentions")
    return (len(ends) - 1) / (ends[-1] - ends[0])


def run_on(nodes: int, words: Sequence[object], log: Log) -> None:
    """Run a command on a cluster of so many nodes of one core.

    Raises:
        RuntimeError: it failed.
    """
    with local_cluster(nodes, 1, pinned=True) as cluster, cluster.connected():
        ended, written = Running(str(words[0]), log).run(seedset(*words))
    if ended.status:
        raise RuntimeError(written)


def processor_seconds() -> float:
    """Return the processor time of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def costs(words: Sequence[object], tables: Mapping[int, Path], output: Path) -> dict[int, float]:
    """Return the processor time of the expansion of each table in one process, by its queries: the least of
    its runs."""
    found: dict[int, float] = {}
    for turn in range(TURNS):
        for size, table in tables.items():
            for run in range(SMALL_RUNS if size <= SMALL else 1):
                before = processor_seconds()
                once(*words, "--queries", table, "--workers", 1, "--output", output / f"{size}-{turn}-{run}")
                found[size] = min(found.get(size, math.inf), processor_seconds() - before)
    return found


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    queries: Annotated[int, typer.Option(min=100, help="Queries that clusters expand.")] = 100_000,
    mentions: Annotated[
        int, typer.Option(min=3 * PART_ROWS, help="Sentences that they preprocess.")
    ] = 400_000,
    tables: Annotated[str, typer.Option(help="Queries of the tables of growing size.")] = "1000,10000,100000",
    method: Annotated[str, typer.Option(help="Method of the expansions.")] = "retexpan",
) -> None:
    """Measure what a second node brings, and the cost of a query by the size of its table."""
    sizes = _sizes(tables)
    rates: dict[str, list[float]] = {"batch": [], "preprocess": []}
    with (
        tempfile.TemporaryDirectory(prefix="cluster-scaling-") as name,
        input_of(workspace) as bundle,
        Log(Path(name) / "events.jsonl") as log,
    ):
        folder = Path(name)
        table = write_table(bundle, folder, queries, 40, method)
        write_corpus(folder / "corpus", mentions)
        for nodes in (1, 2):
            output, own = folder / f"batch-{nodes}", folder / f"workspace-{nodes}"
            run_on(nodes, [*table.words, "--output", output], log)
            rates["batch"].append(rate_of(list(output.glob("part-*.parquet"))))
            once("import", "--source", folder / "corpus", "--format", "parquet", "--workspace", own)
            run_on(nodes, ["preprocess", "--workspace", own, "--max-sentences", SENTENCES_PER_ENTITY], log)
            rates["preprocess"].append(rate_of(list((own / "inputs").rglob("part-*.parquet"))))
        words = ["expand", "--workspace", bundle.folder.parent.parent, "--method", method]
        files = {}
        for size in (BASE, *sizes):
            (folder / str(size)).mkdir()
            write_table(bundle, folder / str(size), size, 1, method)
            files[size] = folder / str(size) / "queries.jsonl"
        spent = costs(words, files, folder / "costs")
    each = {size: (spent[size] - spent[BASE]) / (size - BASE) for size in sizes}
    show(rates, each)


def _sizes(given: str) -> list[int]:
    """Return the sizes of tables.

    Raises:
        typer.BadParameter: one is no number, or not above the small table's.
    """
    sizes = [int(size) if size.strip().isdecimal() else 0 for size in given.split(",")]
    if min(sizes) <= BASE:
        raise typer.BadParameter(f"{given!r}: give numbers of queries above {BASE}, with commas between them")
    return sizes


def show(rates: dict[str, list[float]], each: dict[int, float]) -> None:
    """Print the table and the figures."""
    gains = {name: two / one for name, (one, two) in rates.items()}
    bars = {"batch": BATCH_BAR, "preprocess": PREPROCESS_BAR}
    rows = [
        [f"{name}, 2 nodes against 1", f"{gain:.2f}", str(bars[name]), verdict(gain >= bars[name])]
        for name, gain in gains.items()
    ]
    spread = max(each.values()) / min(each.values())
    rows += [[f"a query of {size:,}, ms", f"{1000 * cost:.2f}", "", ""] for size, cost in each.items()]
    rows.append(["dearest over cheapest", f"{spread:.2f}", f"{FLAT_BAR}", verdict(spread <= FLAT_BAR)])
    report(
        "Nodes of one core on this machine; processor time of a query by the size of its table",
        ["", "", "bar", ""],
        rows,
        name="cluster_scaling",
        ratio=gains["batch"],
        preprocess=gains["preprocess"],
        spread=spread,
        query_ms={str(size): round(1000 * cost, 3) for size, cost in each.items()},
        holds=all(gain >= bars[name] for name, gain in gains.items()) and spread <= FLAT_BAR,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
