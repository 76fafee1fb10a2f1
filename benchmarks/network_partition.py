"""Cut a node off in the middle of a job: nodes in network namespaces, each with an address of its own.

Two namespaces of this machine are joined by a pair of virtual network cards. In each runs a Ray node, and
the commands run in the first one (:mod:`benchmarks.network_nodes`). The node that was cut off lives on, and
may go on to write what it was at, as both see one disk.

- batch, preprocess: a table is expanded, a corpus is preprocessed: in one process, on both nodes, and on both
  while the second one's card is taken down when 30 % of the parts are written. The files must be the bytes of
  the run in one process each time.
- serve: see :mod:`benchmarks.cut_serving`.
- train: see :mod:`benchmarks.cut_training`.

    python -m benchmarks.network_partition
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.batch_faults import KILLED_AT, write_table
from benchmarks.cluster_scaling import SENTENCES_PER_ENTITY, write_corpus
from benchmarks.cut_serving import serve_cut
from benchmarks.cut_training import train_cut
from benchmarks.network_nodes import (
    ADDRESS,
    HEAD,
    WORKER,
    Nodes,
    bounded,
    cluster_environment,
    joined_namespaces,
)
from benchmarks.report import report
from benchmarks.serving import input_of, verdict
from cluster.crashing.commands import once, seedset
from cluster.crashing.events import Log
from engine.corpus.schema import PART_ROWS
from engine.errors import UserError
from jobs import console

WHAT = ("preprocess", "batch", "serve", "train")
"""What a node may be cut off under."""

WRITTEN = ("inputs", "output")
"""Where the jobs write, below their folders."""

EXAMPLES = """
  python -m benchmarks.network_partition
  python -m benchmarks.network_partition --what batch --method default --queries 200 --parts 20 --times 4
  python -m benchmarks.network_partition --what serve,train
"""


class Outcome(NamedTuple):
    """A run.

    Args:
        what: it was.
        seconds: of the command.
        parts: that are there in the end.
        differ: parts and other files that are missing or are not the bytes of the run in one process.
        at_work: Ray's workers on the second node when it was cut off, or at the same time where it was not.
        failed: what a command that failed wrote.
    """

    what: str
    seconds: float
    parts: int
    differ: int
    at_work: int
    failed: str = ""


class Job(NamedTuple):
    """A job.

    Args:
        name: of the command.
        words: return the command's words for a folder that they write into.
        prepare: makes that folder what it must be before.
        parts: how many it writes.
    """

    name: str
    words: Callable[[Path], Sequence[object]]
    prepare: Callable[[Path], Any]
    parts: int


def written_by(folder: Path) -> dict[str, str]:
    """Return the digest of each file of a job's output by its path."""
    files = [*parts_in(folder), *(folder / "inputs").rglob("manifest.json")]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(files)
    }


def parts_in(folder: Path) -> list[Path]:
    """Return the parts that a job has written into a folder."""
    return [part for name in WRITTEN for part in (folder / name).rglob("part-*.parquet")]


def run(job: Job, nodes: Nodes, folder: Path, due: dict[str, str], log: Log, cut: bool) -> Outcome:
    """Run a job on both nodes; ``cut`` takes the second one's card down on the way."""
    job.prepare(folder)
    over, at_work = threading.Event(), 0

    def follow() -> None:
        nonlocal at_work
        while not over.wait(0.05):
            if len(parts_in(folder)) >= KILLED_AT * job.parts:
                if cut:
                    nodes.worker.switch("down")
                at_work = nodes.worker.workers()
                return

    watcher = threading.Thread(target=follow)
    watcher.start()
    started = time.monotonic()
    failed = bounded(job.name, nodes.head.words(seedset(*job.words(folder))), log)
    seconds = time.monotonic() - started
    over.set()
    watcher.join()
    found = written_by(folder)
    differ = sum(found.get(name) != due.get(name) for name in found.keys() | due.keys())
    what = f"{job.name}, {'a node is cut off' if cut else 'both nodes'}"
    parts = sum(name.endswith(".parquet") for name in found)
    return Outcome(what, seconds, parts, differ, at_work, failed)


def preprocessing(folder: Path, mentions: int) -> Job:
    """Import a corpus that is made up; return the job that preprocesses it."""
    write_corpus(folder / "corpus", mentions)
    source = folder / "imported"
    once("import", "--source", folder / "corpus", "--format", "parquet", "--workspace", source)
    words = ["preprocess", "--max-sentences", SENTENCES_PER_ENTITY, "--workspace"]
    n_parts = len(list((source / "corpus" / "mentions").glob("*.parquet")))
    return Job("preprocess", lambda own: [*words, own], lambda own: shutil.copytree(source, own), n_parts)


def expansion(folder: Path, bundle: Any, queries: int, parts: int, method: str) -> Job:
    """Write a table; return the job that expands it."""
    table = write_table(bundle, folder, queries, parts, method)
    return Job("expand", lambda own: [*table.words, "--output", own / "output"], Path.mkdir, parts)


def outcomes_of(job: Job, nodes: Nodes, folder: Path, log: Log, times: int) -> list[Outcome]:
    """Run a job in one process, on both nodes, and as often as is asked while one of them is cut off."""
    alone = folder / f"{job.name}-alone"
    job.prepare(alone)
    once(*job.words(alone), "--workers", 1)
    due = written_by(alone)
    outcomes = [run(job, nodes, folder / f"{job.name}-both", due, log, cut=False)]
    for turn in range(times):
        outcomes.append(run(job, nodes, folder / f"{job.name}-cut-{turn}", due, log, cut=True))
        nodes.mend()
    return outcomes


def asked_for(what: str) -> list[str]:
    """Return the names of a list with commas.

    Raises:
        UserError: one is unknown.
    """
    names = [name.strip() for name in what.split(",")]
    if unknown := [name for name in names if name not in WHAT]:
        raise UserError(f"--what {what}: {unknown[0]!r} is none of {', '.join(WHAT)}")
    return names


def main(
    what: Annotated[str, typer.Option(help="Of " + ", ".join(WHAT) + ".")] = ",".join(WHAT),
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    mentions: Annotated[
        int, typer.Option(min=5 * PART_ROWS, help="Sentences that are preprocessed.")
    ] = 200_000,
    queries: Annotated[int, typer.Option(min=40, help="Queries of the table.")] = 20_000,
    parts: Annotated[int, typer.Option(min=10, help="Parts of the table's output.")] = 40,
    method: Annotated[str, typer.Option(help="Method of the expansion, and of requests.")] = "retexpan",
    times: Annotated[int, typer.Option(min=1, help="Cuts under each of the batch jobs.")] = 1,
) -> None:
    """Cut a node off while a corpus is preprocessed, a table expanded, requests answered, a model trained."""
    wanted = asked_for(what)
    cluster_environment()
    with (
        tempfile.TemporaryDirectory(prefix="partition-") as name,
        input_of(workspace) as bundle,
        joined_namespaces() as (head, worker),
        Log(Path(name) / "events.jsonl") as log,
    ):
        folder, outcomes = Path(name), list[Outcome]()
        nodes = Nodes(head, worker, folder / "ray")
        nodes.start_both()
        os.environ["RAY_ADDRESS"] = ADDRESS
        if "preprocess" in wanted:
            outcomes += outcomes_of(preprocessing(folder, mentions), nodes, folder, log, times)
        if "batch" in wanted:
            job = expansion(folder, bundle, queries, parts, method)
            outcomes += outcomes_of(job, nodes, folder, log, times)
        if outcomes:
            show(outcomes)
        if "serve" in wanted:
            serve_cut(bundle, method, nodes, folder, log)
        if "train" in wanted:
            train_cut(nodes, folder, log)


def show(outcomes: Sequence[Outcome]) -> None:
    """Print the table and the figures."""
    for one in outcomes:
        if one.failed:
            print(f"FAILED: {one.what}: {one.failed}")
    holds = all(not one.failed and one.differ == 0 and one.at_work for one in outcomes)
    report(
        f"Two nodes in network namespaces of their own, {HEAD} and {WORKER}: every file is the bytes of the "
        f"run in one process, and the second node was at work: {verdict(holds)}",
        ["", "parts", "other files", "workers there", "s"],
        [[o.what, str(o.parts), str(o.differ), str(o.at_work), f"{o.seconds:.0f}"] for o in outcomes],
        name="network_partition",
        differ=sum(one.differ for one in outcomes),
        failed=sum(bool(one.failed) for one in outcomes),
        holds=holds,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
