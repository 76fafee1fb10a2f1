"""Cut a node off under a training on two workers, one on each node.

When 30 % of the steps are in checkpoints, the second node's card is taken down; when the head has given the
node up, another comes in its place. The training must go on from its checkpoint, and end where an undisturbed
one ends.
"""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.batch_faults import KILLED_AT
from benchmarks.cluster_scaling import write_corpus
from benchmarks.network_nodes import Nodes, bounded
from benchmarks.report import report
from benchmarks.serving import verdict
from cluster.crashing.checker import TOLERANCE
from cluster.crashing.commands import Running, once, seedset
from cluster.crashing.events import Log
from cluster.crashing.work import Training, summary_of

MENTIONS, SENTENCES, EPOCHS = 4_000, 4, 100
"""Sentences of the corpus, of an entity in the model input, and passes over it."""

CHECKPOINT_S = 2
WORKERS = 2


class Trained(NamedTuple):
    """A training.

    Args:
        what: it was.
        seconds: of the command.
        loss, steps: at its end.
        resumed_at: step from which its last life went on.
        kept: step of the older of the checkpoints that were kept at the cut; None: there was no cut.
        at_work: Ray's workers on the second node at the cut.
        failed: what a command that failed wrote.
    """

    what: str
    seconds: float
    loss: float = float("nan")
    steps: int = 0
    resumed_at: int = 0
    kept: int | None = None
    at_work: int = 0
    failed: str = ""


def as_undisturbed(cut: Trained, due: Trained) -> bool:
    """Return whether a training went on from its checkpoint, and ended where another one did."""
    near = abs(cut.loss - due.loss) <= TOLERANCE * abs(due.loss)
    went_on = cut.kept is not None and cut.resumed_at >= cut.kept > 0
    return not cut.failed and near and cut.steps == due.steps and went_on and cut.at_work > 0


def train_cut(nodes: Nodes, folder: Path, log: Log) -> None:
    """Train on both nodes, undisturbed and while one of them is cut off, and report what came of it."""
    workspace = folder / "training"
    write_corpus(folder / "training-corpus", MENTIONS)
    once("import", "--source", folder / "training-corpus", "--format", "parquet", "--workspace", workspace)
    once("preprocess", "--max-sentences", SENTENCES, "--workspace", workspace)
    due = _trained(nodes, workspace, log)
    shutil.rmtree(workspace / "runs")
    show(due, _trained(nodes, workspace, log, cut_at=KILLED_AT * due.steps))


def _trained(nodes: Nodes, workspace: Path, log: Log, cut_at: float | None = None) -> Trained:
    """Run a training; with a step, a node is cut off when a checkpoint holds it."""
    runs = workspace / "runs" / "train_encoder"
    training = Training([], runs, Running("train", log))
    over, at_work, kept = threading.Event(), 0, None

    def follow() -> None:
        nonlocal at_work, kept
        while not over.wait(0.2):
            if (kept := training.kept_step()) is not None and kept >= (cut_at or 0):
                at_work = nodes.worker.workers()
                nodes.worker.switch("down")
                nodes.mend()
                return

    watcher = threading.Thread(target=follow)
    if cut_at is not None:
        watcher.start()
    words = ["train-encoder", "--workspace", workspace, "--workers", WORKERS, "--epochs", EPOCHS]
    started = time.monotonic()
    failed = bounded("train", nodes.head.words(seedset(*words, "--checkpoint-seconds", CHECKPOINT_S)), log)
    seconds = time.monotonic() - started
    over.set()
    if cut_at is not None:
        watcher.join()
    what = "a node is cut off, and comes back" if cut_at is not None else "undisturbed"
    if failed:
        return Trained(what, seconds, kept=kept, at_work=at_work, failed=failed)
    return Trained(what, seconds, *summary_of(runs), kept, at_work)


def show(due: Trained, cut: Trained) -> None:
    """Print the table and the figures."""
    for one in (due, cut):
        if one.failed:
            print(f"FAILED: training, {one.what}: {one.failed}")
    holds = not due.failed and as_undisturbed(cut, due)
    report(
        f"A training on two nodes, one of them cut off at step {cut.kept}: goes on from its checkpoint and "
        f"ends where an undisturbed one does: {verdict(holds)}",
        ["", "loss", "steps", "went on from step", "workers there", "s"],
        [
            [o.what, f"{o.loss:.6f}", str(o.steps), str(o.resumed_at), str(o.at_work), f"{o.seconds:.0f}"]
            for o in (due, cut)
        ],
        name="network_partition_training",
        loss=cut.loss,
        due=due.loss,
        resumed_at=cut.resumed_at,
        holds=holds,
    )
