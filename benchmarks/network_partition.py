"""Cut a node off in the middle of a job: nodes in network namespaces, each with an address of its own.

Two namespaces of this machine are joined by a pair of virtual network cards. In each runs a Ray node, and
the commands run in the first one. A corpus is preprocessed and a table is expanded: in one process, on both
nodes, and on both nodes while the second one's card is taken down when 30 % of the parts are written. The
node that was cut off lives on, and may go on to write what it was at, as both see one disk. The files must be
the bytes of the run in one process each time. Needs Linux, root, and the command ``ip`` (iproute2).

    python -m benchmarks.network_partition
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.batch_faults import KILLED_AT, write_table
from benchmarks.cluster_scaling import SENTENCES_PER_ENTITY, write_corpus
from benchmarks.report import report
from benchmarks.serving import input_of, verdict
from cluster.crashing.commands import Running, once, seedset
from cluster.crashing.events import Ended, Log
from cluster.local import NODE_STORE_BYTES, node_environment
from engine.corpus.schema import PART_ROWS
from engine.errors import UserError
from jobs import console

HEAD, WORKER = "10.77.31.1", "10.77.31.2"
"""Addresses of the two nodes: seen in their namespaces alone, so they may be in use outside."""

ADDRESS = f"{HEAD}:6379"
CPUS = 2

HEALTH_CHECK = {"period_ms": 2000, "timeout_ms": 5000, "failure_threshold": 4}
"""After four checks of 5 s at most without an answer a node counts as dead."""

ALIVE = (
    f"import ray; ray.init(address='{ADDRESS}', log_to_driver=False, logging_level='ERROR'); "
    "print('alive', sum(node['Alive'] for node in ray.nodes()))"
)

START_S, SETTLE_S = 180.0, 120.0

LIMIT_S = 900.0
"""A command that has not ended by then is killed, and counts as failed."""

NOT_AT_WORK = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL", "ray::RESTORE")
"""Beginnings of what processes of every node call themselves."""

WRITTEN = ("inputs", "output")
"""Where the jobs write, below their folders."""

EXAMPLES = """
  python -m benchmarks.network_partition
  python -m benchmarks.network_partition --mentions 50000 --queries 2000
"""


class Namespace(NamedTuple):
    """A network namespace, the card in it, and the address of that."""

    name: str
    card: str
    address: str

    def words(self, words: Sequence[object]) -> list[str]:
        """Return the words of a command that runs in it."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def processes(self) -> list[tuple[int, str]]:
        """Return the processes in it, and what they call themselves."""
        found = []
        for pid in ip("netns", "pids", self.name).split():
            with suppress(OSError):  # it has ended meanwhile
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                found.append((int(pid), title))
        return found

    def end_processes(self) -> None:
        """Kill all that runs in it: nothing does that was not started here."""
        while left := self.processes():
            for pid, _ in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def switch(self, state: str) -> None:
        """Take its card "up" or "down"."""
        ip("-n", self.name, "link", "set", self.card, state)


def ip(*words: str) -> str:
    """Run ``ip``, and return what it writes.

    Raises:
        UserError: it is not there, or refuses.
    """
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("no command `ip` on this machine: install iproute2") from None
    if done.returncode:
        raise UserError(f"ip {' '.join(words)}: {done.stderr.strip()}; network namespaces need root")
    return done.stdout


@contextmanager
def joined_namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    """Make two namespaces that are joined by their cards, while the block runs."""
    mark = f"part{os.getpid()}"
    head, worker = Namespace(f"{mark}-a", "card", HEAD), Namespace(f"{mark}-b", "card", WORKER)
    made = []
    try:
        for one in (head, worker):
            ip("netns", "add", one.name)
            made.append(one)
        pair = ("type", "veth", "peer", "name", worker.card, "netns", worker.name)
        ip("link", "add", head.card, "netns", head.name, *pair)
        for one in made:
            ip("-n", one.name, "address", "add", f"{one.address}/24", "dev", one.card)
            ip("-n", one.name, "link", "set", "lo", "up")
            one.switch("up")
        yield head, worker
    finally:
        for one in made:
            one.end_processes()
            ip("netns", "delete", one.name)


class Nodes:
    """The two Ray nodes.

    Args:
        head, worker: their namespaces.
        folder: for Ray's session.
    """

    def __init__(self, head: Namespace, worker: Namespace, folder: Path) -> None:
        self.head, self.worker, self._folder = head, worker, folder

    def start(self, namespace: Namespace) -> None:
        """Start a node."""
        settings = ["--node-ip-address", namespace.address, "--num-cpus", CPUS, "--disable-usage-stats"]
        settings += ["--object-store-memory", NODE_STORE_BYTES, "--block"]
        if namespace is self.head:
            settings += ["--head", "--port", ADDRESS.rpartition(":")[2], "--temp-dir", self._folder]
            settings += ["--include-dashboard", "false"]
        else:
            settings += ["--address", ADDRESS]
        ray = Path(sys.executable).parent / "ray"
        with (self._folder.parent / f"{namespace.name}.log").open("ab") as written:
            subprocess.Popen(
                namespace.words([ray, "start", *settings]),
                stdout=written,
                stderr=written,
                start_new_session=True,
            )

    def alive(self) -> int:
        """Return how many nodes the cluster has; 0 while it does not answer."""
        words = self.head.words([sys.executable, "-c", ALIVE])
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("alive ")]
        return int(said[0]) if said else 0

    def wait_for(self, count: int, seconds: float) -> None:
        """Wait until the cluster has so many nodes.

        Raises:
            RuntimeError: it has not in time.
        """
        end = time.monotonic() + seconds
        while (found := self.alive()) != count:
            if time.monotonic() > end:
                raise RuntimeError(f"{found} nodes after {seconds:.0f} s, not {count}")
            time.sleep(1)

    def mend(self) -> None:
        """Bring a node that was cut off back: its card, and a new raylet in the place of the lost one."""
        self.wait_for(1, SETTLE_S)
        self.worker.end_processes()
        self.worker.switch("up")
        self.start(self.worker)
        self.wait_for(2, START_S)


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


def failure_of(ended: Ended) -> str:
    """Return what a command that failed wrote, and whether it was killed at its limit; else ""."""
    late = f"killed after {LIMIT_S:.0f} s; " if ended.killed else ""
    return f"{late}{ended.output or ended.status}" if ended.status else ""


def workers_among(titles: Iterable[str]) -> int:
    """Return how many processes are actors or tasks, by what they call themselves."""
    return sum(title.startswith("ray::") and not title.startswith(NOT_AT_WORK) for title in titles)


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
                at_work = workers_among(title for _, title in nodes.worker.processes())
                return

    watcher = threading.Thread(target=follow)
    watcher.start()
    running, started = Running(job.name, log), time.monotonic()
    limit = threading.Timer(LIMIT_S, running.strike)
    limit.start()
    ended, _ = running.run(nodes.head.words(seedset(*job.words(folder))))
    limit.cancel()
    seconds = time.monotonic() - started
    over.set()
    watcher.join()
    found = written_by(folder)
    differ = sum(found.get(name) != due.get(name) for name in found.keys() | due.keys())
    what = f"{job.name}, {'a node is cut off' if cut else 'both nodes'}"
    parts = sum(name.endswith(".parquet") for name in found)
    return Outcome(what, seconds, parts, differ, at_work, failure_of(ended))


def jobs_of(folder: Path, bundle: Any, mentions: int, queries: int, parts: int, method: str) -> list[Job]:
    """Make what the jobs work on."""
    write_corpus(folder / "corpus", mentions)
    source = folder / "imported"
    once("import", "--source", folder / "corpus", "--format", "parquet", "--workspace", source)
    table = write_table(bundle, folder, queries, parts, method)
    preprocess = ["preprocess", "--max-sentences", SENTENCES_PER_ENTITY, "--workspace"]
    n_parts = len(list((source / "corpus" / "mentions").glob("*.parquet")))
    return [
        Job("preprocess", lambda own: [*preprocess, own], lambda own: shutil.copytree(source, own), n_parts),
        Job("expand", lambda own: [*table.words, "--output", own / "output"], Path.mkdir, parts),
    ]


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    mentions: Annotated[
        int, typer.Option(min=5 * PART_ROWS, help="Sentences that are preprocessed.")
    ] = 200_000,
    queries: Annotated[int, typer.Option(min=40, help="Queries of the table.")] = 20_000,
    parts: Annotated[int, typer.Option(min=10, help="Parts of the table's output.")] = 40,
    method: Annotated[str, typer.Option(help="Method of the expansion.")] = "retexpan",
) -> None:
    """Cut a node off while a corpus is preprocessed and a table is expanded."""
    node_environment()
    os.environ |= {f"RAY_health_check_{name}": str(value) for name, value in HEALTH_CHECK.items()}
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="partition-") as name,
        input_of(workspace) as bundle,
        joined_namespaces() as (head, worker),
        Log(Path(name) / "events.jsonl") as log,
    ):
        folder = Path(name)
        jobs = jobs_of(folder, bundle, mentions, queries, parts, method)
        nodes = Nodes(head, worker, folder / "ray")
        for one in (head, worker):
            nodes.start(one)
            nodes.wait_for(1 if one is head else 2, START_S)
        for job in jobs:
            alone = folder / f"{job.name}-alone"
            job.prepare(alone)
            once(*job.words(alone), "--workers", 1)
            due = written_by(alone)
            os.environ["RAY_ADDRESS"] = ADDRESS
            outcomes.append(run(job, nodes, folder / f"{job.name}-both", due, log, cut=False))
            outcomes.append(run(job, nodes, folder / f"{job.name}-cut", due, log, cut=True))
            nodes.mend()
            del os.environ["RAY_ADDRESS"]
    show(outcomes)


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
