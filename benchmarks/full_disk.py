"""Let the disk fill up in the middle of a job, make room, and run the same command again.

A small file system in memory (tmpfs: needs Linux and root) holds all that the jobs write: the workspace, the
output, and this machine's caches. When 30 % of the parts are written, or of the steps are in checkpoints, it
is filled to its last byte, and kept so until the command has ended. The command must end with a line that
says so and what to do. What it had made must be whole, and the same command, with room again, must end where
an undisturbed one ends: with the same bytes, a training with the same loss. A service must answer on; a set
that cannot be kept must be told of as that, and be kept with room again.

    python -m benchmarks.full_disk
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NamedTuple

import httpx
import typer

from benchmarks.batch_faults import KILLED_AT
from benchmarks.cluster_scaling import write_corpus
from benchmarks.cut_serving import CLIENTS, Served, rankings_alone, served
from benchmarks.cut_training import CHECKPOINT_S, EPOCHS, MENTIONS, SENTENCES, WORKERS
from benchmarks.network_partition import Job, expansion, parts_in, preprocessing, written_by
from benchmarks.report import report
from benchmarks.serving import input_of, verdict
from cluster.crashing.checker import TOLERANCE
from cluster.crashing.clients import load
from cluster.crashing.commands import Running, once, seedset
from cluster.crashing.events import Answered, Log
from cluster.crashing.prepared import QUESTIONS, question
from cluster.crashing.service import service
from cluster.crashing.work import Training, summary_of
from cluster.errors import USER_STATUS
from cluster.local import local_cluster
from engine.corpus.schema import PART_ROWS
from engine.errors import UserError
from engine.storage.bundle import Bundle
from jobs import console

NODES, CPUS = 2, 1
DISK_MIB = 1024
SERVED_S = 20.0
"""Time for which the service is asked with a full disk, and again with room."""

EXAMPLES = """
  python -m benchmarks.full_disk
  python -m benchmarks.full_disk --queries 4000 --mentions 60000
"""


class SmallDisk(NamedTuple):
    """A file system of its own, below a folder."""

    folder: Path

    def keep_full(self, until: threading.Event) -> None:
        """Fill it to its last byte, also where something is removed, until the event."""
        with (self.folder / "filler").open("wb", buffering=0) as file:
            while not until.wait(0.02):
                for size in (1 << 20, 4096, 1):
                    self._write(file.write, b"\0" * size)

    def free(self) -> None:
        """Make room again."""
        (self.folder / "filler").unlink(missing_ok=True)

    @staticmethod
    def _write(write: Callable[[bytes], object], block: bytes) -> None:
        try:
            while True:
                write(block)
        except OSError:
            return  # no room for another one


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount a small file system at a folder while the block runs.

    Raises:
        UserError: this account may not.
    """
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "seedset", str(folder)]
    if (done := subprocess.run(words, capture_output=True, text=True, check=False)).returncode:
        raise UserError(f"{' '.join(words)}: {done.stderr.strip()}; this benchmark needs Linux and root")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Outcome(NamedTuple):
    """A job whose disk was full on the way.

    Args:
        what: it was.
        status: of the command that met the full disk.
        told: the line that it ended with.
        place: a path that the line must name.
        cut: files that it left and that are not whole; of a training: whether it lost its checkpoint.
        differ: files, or figures, that are not an undisturbed run's after the second command.
        failed: what the second command wrote if it failed.
    """

    what: str
    status: int
    told: str
    place: Path
    cut: int
    differ: int
    failed: str = ""

    @property
    def holds(self) -> bool:
        """Whether nothing was lost, and the command said what was wrong."""
        explained = self.status == USER_STATUS and f"{self.place}/" in self.told and "free space" in self.told
        return explained and not self.cut and not self.differ and not self.failed


def run_full(
    name: str, words: list[str], disk: SmallDisk, far_enough: Callable[[], bool], log: Log
) -> tuple[int, str]:
    """Run a command, and fill the disk when it has come far enough; return its status and its last error."""
    over = threading.Event()

    def follow() -> None:
        while not over.wait(0.02):
            if far_enough():
                disk.keep_full(over)

    watcher = threading.Thread(target=follow)
    watcher.start()
    ended, written = Running(name, log).run(words)
    over.set()
    watcher.join()
    disk.free()
    errors = [line for line in written.splitlines() if line.startswith("error: ")]
    return ended.status, errors[-1] if errors else written[-300:].strip()


def run_again(name: str, words: list[str], log: Log) -> str:
    """Run a command with room on the disk; return what it wrote if it failed, else ""."""
    ended, _ = Running(name, log).run(words)
    return (ended.output or str(ended.status)) if ended.status else ""


def batch_outcome(job: Job, disk: SmallDisk, folder: Path, log: Log) -> Outcome:
    """Run a job whose parts are files: with a full disk, and again."""
    alone, own = folder / f"{job.name}-alone", disk.folder / job.name
    job.prepare(alone)
    once(*job.words(alone), "--workers", 1)
    due = written_by(alone)
    job.prepare(own)
    words = seedset(*job.words(own))
    status, told = run_full(job.name, words, disk, lambda: len(parts_in(own)) >= KILLED_AT * job.parts, log)
    cut = sum(due.get(name) != digest for name, digest in written_by(own).items())
    failed = run_again(job.name, words, log)
    found = written_by(own)
    differ = sum(found.get(name) != due.get(name) for name in found.keys() | due.keys())
    shutil.rmtree(own)
    return Outcome(job.name, status, told, own, cut, differ, failed)


def training_outcome(disk: SmallDisk, folder: Path, log: Log) -> Outcome:
    """Train on two workers: undisturbed, with a full disk, and again."""
    alone, own = folder / "training", disk.folder / "training"
    write_corpus(folder / "training-corpus", MENTIONS)
    once("import", "--source", folder / "training-corpus", "--format", "parquet", "--workspace", alone)
    once("preprocess", "--max-sentences", SENTENCES, "--workspace", alone)
    shutil.copytree(alone, own)
    options = ("--workers", WORKERS, "--epochs", EPOCHS, "--checkpoint-seconds", CHECKPOINT_S)

    def words(workspace: Path) -> list[str]:
        return seedset("train-encoder", "--workspace", workspace, *options)

    if failed := run_again("train", words(alone), log):
        raise RuntimeError(f"the undisturbed training failed: {failed}")
    due_loss, due_steps, _ = summary_of(alone / "runs" / "train_encoder")
    runs = own / "runs" / "train_encoder"
    kept = Training([], runs, Running("kept", log)).kept_step
    status, told = run_full("train", words(own), disk, lambda: (kept() or 0) >= KILLED_AT * due_steps, log)
    before = kept() or 0
    failed = run_again("train", words(own), log)
    if failed:
        return Outcome("train", status, told, runs, int(not before), 1, failed)
    loss, steps, resumed_at = summary_of(runs)
    differ = int(abs(loss - due_loss) > TOLERANCE * abs(due_loss)) + int(steps != due_steps)
    return Outcome("train", status, told, runs, int(not before or resumed_at < before), differ)


class Kept(NamedTuple):
    """What a service said to a set that was to be kept: with a full disk, and with room again."""

    full: int
    message: str
    free: int


def serving_outcome(
    bundle: Bundle, method: str, disk: SmallDisk, folder: Path, log: Log
) -> tuple[list[Served], Kept]:
    """Serve a workspace on the small disk under load; fill the disk, then make room."""
    workspace, drawn, stop = disk.folder / "served", random.Random(5), threading.Event()
    shutil.copytree(bundle.folder.parent.parent, workspace)
    names = list(bundle.vocabulary.names)
    asked = [question(f"ask-{number:02}", names, drawn) for number in range(QUESTIONS)]
    due = rankings_alone(bundle.folder.parent.parent, method, asked)
    with service(workspace, [method], folder / "service.log") as url, httpx.Client(base_url=url) as http:
        clients = [
            threading.Thread(target=load, args=(url, asked, [method], log, stop)) for _ in range(CLIENTS)
        ]
        for client in clients:
            client.start()
        over = threading.Event()
        filling = threading.Thread(target=disk.keep_full, args=(over,))
        filling.start()
        full_at = log.now()
        time.sleep(SERVED_S)
        full = http.post("/v1/sets", json={"name": "full"}, timeout=60)
        over.set()
        filling.join()
        disk.free()
        free_at = log.now()
        free = http.post("/v1/sets", json={"name": "free"}, timeout=60)
        time.sleep(SERVED_S)
        stop.set()
        for client in clients:
            client.join()
    answers = log.of(Answered)
    phases = [
        served("with a full disk", [one for one in answers if full_at <= one.at < free_at], due),
        served("with room again", [one for one in answers if one.at >= free_at], due),
    ]
    return phases, Kept(full.status_code, full.text[:300], free.status_code)


def main(
    workspace: Annotated[Path | None, typer.Option(help="A real bundle's; default: a made-up one.")] = None,
    mentions: Annotated[
        int, typer.Option(min=5 * PART_ROWS, help="Sentences that are preprocessed.")
    ] = 100_000,
    queries: Annotated[int, typer.Option(min=40, help="Queries of the table.")] = 4_000,
    parts: Annotated[int, typer.Option(min=10, help="Parts of the table's output.")] = 20,
    method: Annotated[str, typer.Option(help="Method of the expansion, and of requests.")] = "retexpan",
    mebibytes: Annotated[int, typer.Option(help="Size of the disk.")] = DISK_MIB,
) -> None:
    """Fill the disk while a corpus is preprocessed, a table expanded, a model trained, requests answered."""
    with (
        tempfile.TemporaryDirectory(prefix="full-disk-") as name,
        input_of(workspace) as bundle,
        small_disk(Path(name) / "disk", mebibytes) as disk,
        Log(Path(name) / "events.jsonl") as log,
    ):
        folder = Path(name)
        os.environ["SEEDSET_CACHE"] = str(disk.folder / "cache")
        with local_cluster(NODES, CPUS) as cluster, cluster.connected():
            jobs = [preprocessing(folder, mentions), expansion(folder, bundle, queries, parts, method)]
            outcomes = [batch_outcome(job, disk, folder, log) for job in jobs]
            outcomes.append(training_outcome(disk, folder, log))
            phases, kept = serving_outcome(bundle, method, disk, folder, log)
    show(outcomes, phases, kept)


def show(outcomes: list[Outcome], phases: list[Served], kept: Kept) -> None:
    """Print the tables and the figures."""
    for one in outcomes:
        print(f"{one.what}: status {one.status}: {one.told}")
        if one.failed:
            print(f"FAILED: {one.what}: {one.failed}")
    print(f"a set with a full disk: status {kept.full}: {kept.message}")
    lost, wrong = sum(one.lost for one in phases), sum(one.wrong for one in phases)
    sets = kept.full >= 500 and kept.free < 300
    holds = all(one.holds for one in outcomes) and not lost and not wrong and sets
    report(
        f"A disk that is full on the way, on {NODES} nodes: told, nothing cut, and after the same command "
        f"again nothing else than undisturbed; no request lost: {verdict(holds)}",
        ["", "status", "not whole", "other than undisturbed", "requests", "lost", "wrong"],
        [[o.what, str(o.status), str(o.cut), str(o.differ), "", "", ""] for o in outcomes]
        + [[o.when, "", "", "", str(o.sent), str(o.lost), str(o.wrong)] for o in phases],
        name="full_disk",
        cut=sum(one.cut for one in outcomes),
        differ=sum(one.differ for one in outcomes),
        failed=sum(bool(one.failed) for one in outcomes),
        lost=lost,
        wrong=wrong,
        set_full=kept.full,
        set_free=kept.free,
        holds=holds,
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
