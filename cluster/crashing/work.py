"""Do the work that faults meet: publish, expand a table, train, each again and again until told to stop."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from cluster.crashing.commands import Running, result_of, seedset
from cluster.crashing.events import Expanded, Log, Pointed, Trained
from engine.errors import UserError
from engine.storage.store import Store
from engine.training.checkpoint import STATE, fault_in_checkpoint, step_of

POLL_S = 0.1
"""Time between two looks at the pointer, and at the parts of a table."""

PARTS, PART_SIZE = 12, 16
"""Parts of the table, and queries a part."""


@dataclass
class Pointer:
    """Watches which bundle is the current one.

    Args:
        file: the workspace's pointer.
        log: of the run.
        began: wall clock at the log's second 0: a file knows when it was written.
    """

    file: Path
    log: Log
    began: float = field(default_factory=time.time)
    _seen: tuple[int, int] | None = None

    def look(self) -> None:
        """Log a change."""
        about = self.file.stat()
        if self._seen != (about.st_mtime_ns, about.st_ino):
            self._seen = (about.st_mtime_ns, about.st_ino)
            self.log.add(Pointed(about.st_mtime - self.began, self.file.read_text(encoding="utf-8").strip()))

    def watch(self, stop: threading.Event) -> None:
        """Log changes until ``stop``."""
        while not stop.wait(POLL_S):
            self.look()


@dataclass
class Publisher:
    """Publishes the bundles of some model inputs in turn, and goes back to the first between them."""

    workspace: Path
    inputs: Sequence[str]
    running: Running

    def work(self, stop: threading.Event) -> None:
        """Publish until ``stop``."""
        first = (self.workspace / "bundles" / "CURRENT").read_text(encoding="utf-8").strip()
        at = ("--workspace", self.workspace)
        turn = 0
        while not stop.is_set():
            turn += 1
            made = ("--untrained", "--inputs", self.inputs[turn % len(self.inputs)])
            self.running.run(seedset("build-index", *at, *made, "--workers", 1))
            if not stop.is_set():
                self.running.run(seedset("bundles", *at, "--use", first))


@dataclass
class Batch:
    """Expands a table into one folder after the other.

    Args:
        words: of the command, all but its output.
        folder: of the outputs.
        running: where it runs.
    """

    words: Sequence[object]
    folder: Path
    running: Running
    remade: list[str] = field(default_factory=list)
    """Parts of the output under way that were written more than once."""
    _parts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def work(self, stop: threading.Event) -> None:
        """Expand until ``stop``; what was begun is ended."""
        number = 0
        while not stop.is_set():
            number += 1
            self._expand(self.folder / f"{number:03}")

    def _expand(self, output: Path) -> None:
        """Run the command until it ends by itself, and log what came of it."""
        self._parts, self.remade = {}, []
        lost = again = 0
        seen = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(output, seen), daemon=True)
        watcher.start()
        while True:
            ended, written = self.running.run(seedset(*self.words, "--output", output))
            if ended.status == 0 or not ended.killed:
                break
            lost = PART_SIZE * (PARTS - len(list(output.glob("part-*.parquet"))))
        seen.set()
        watcher.join()
        if ended.status:
            return  # the checker names it
        if lost:
            again = PART_SIZE * int(result_of(written)["made"])
        queries, digests = read_output(output)
        done = (str(output), queries, digests, sorted(set(self.remade)), lost, again)
        self.running.log.add(Expanded(self.running.log.now(), *done))
        shutil.rmtree(output)

    def _watch(self, output: Path, stop: threading.Event) -> None:
        while not stop.wait(POLL_S):
            self.look(output)

    def look(self, output: Path) -> None:
        """Note which parts were written again since the last look."""
        for part in output.glob("part-*.parquet"):
            about = part.stat()
            now = (about.st_mtime_ns, about.st_ino)
            if self._parts.setdefault(part.name, now) != now:
                self.remade.append(part.name)
                self._parts[part.name] = now


def read_output(output: Path) -> tuple[list[str], dict[str, str]]:
    """Return the ids of an expanded table's queries, in order, and the digest of each part."""
    queries: list[str] = []
    digests = {}
    for part in sorted(output.glob("part-*.parquet")):
        rows = pq.read_table(part, columns=["query_id", "rank"]).to_pylist()
        queries += [row["query_id"] for row in rows if row["rank"] <= 1]
        digests[part.name] = hashlib.sha256(part.read_bytes()).hexdigest()
    return queries, digests


@dataclass
class Training:
    """Submits a training as a job, and submits it again where it was stopped.

    Args:
        words: of the job.
        runs: folder of its runs.
        running: where ``ray job submit`` runs.
    """

    words: Sequence[str]
    runs: Path
    running: Running
    job: str = ""
    stopped_at: int | None = None
    _number: int = 0

    def work(self, stop: threading.Event) -> None:
        """Train until ``stop``; what was begun is ended."""
        while not stop.is_set():
            for folder in self.runs.glob("*/"):
                shutil.rmtree(folder)
            self.stopped_at = None
            while True:
                self._number += 1
                self.job = f"crash-{self._number}"
                submit = [*ray_job("submit"), "--submission-id", self.job, "--", *self.words]
                ended, _ = self.running.run(submit)
                if (done := any(self.runs.glob("*/summary.json"))) or not ended.killed:
                    break
                self.stopped_at = self.kept_step()
            if done:
                at, (loss, steps, resumed_at) = self.running.log.now(), summary_of(self.runs)
                self.running.log.add(Trained(at, loss, steps, resumed_at, self.stopped_at))

    def stop_job(self) -> str:
        """End the job as a user does; return which it was, "" if none runs."""
        job = self.job
        if not self.running.expect_end():
            return ""
        # One that is not known yet, or has ended just now, cannot be stopped.
        if subprocess.run([*ray_job("stop"), job], capture_output=True, check=False).returncode:
            self.running.expect_no_end()
            return ""
        return job

    def kept_step(self) -> int | None:
        """Return the step of the oldest of the two checkpoints that are kept; None if there is none."""
        folders = [Store.open(state.parent) for state in self.runs.glob(f"*/checkpoint_*/{STATE}")]
        whole = [step_of(folder) for folder in folders if fault_in_checkpoint(folder) is None]
        return min(whole, default=None)


def summary_of(runs: Path) -> tuple[float, int, int]:
    """Return loss, steps, and the step that the last life went on from, of the only run.

    Raises:
        UserError: there is none, or several.
    """
    found = list(runs.glob("*/summary.json"))
    if len(found) != 1:
        raise UserError(f"{runs}: {len(found)} finished runs, not one")
    summary = json.loads(found[0].read_text(encoding="utf-8"))
    return float(summary["loss"]), int(summary["steps"]), int(summary["resumed_at"])


def ray_job(action: str) -> list[str]:
    """Return the beginning of ``ray job ACTION``, of the Ray that this program runs with."""
    return [str(Path(sys.executable).with_name("ray")), "job", action]
