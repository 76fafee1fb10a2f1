"""Let the work of a run go on while faults come, and hold what was seen against what must be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from cluster.crashing import clients
from cluster.crashing.checker import Violation, check_answer, check_command, check_table, check_training
from cluster.crashing.commands import Running
from cluster.crashing.events import Answered, Ended, Expanded, Log, Pointed, Trained
from cluster.crashing.faults import Injector
from cluster.crashing.prepared import METHODS, Prepared
from cluster.crashing.schedule import Fault
from cluster.crashing.service import service
from cluster.crashing.work import Batch, Pointer, Publisher, Training
from cluster.local import local_cluster
from engine.errors import BundleError
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace

END_S = 600.0
"""Time for what was begun to end, once nothing dies any more."""


def run(
    prepared: Prepared,
    faults: Sequence[Fault],
    seconds: float,
    folder: Path,
    nodes: tuple[int, int],
    callers: int,
) -> Log:
    """Let the work go on while faults come; return what was seen.

    Args:
        prepared: what there is to do.
        faults: that come.
        seconds: after which no work is begun any more.
        folder: of the logs.
        nodes: how many, and the cores of each.
        callers: of the service.
    """
    with (
        local_cluster(*nodes) as cluster,
        cluster.connected(),
        service(prepared.workspace, METHODS, folder / "service.log") as url,
    ):
        log = Log(folder / "events.jsonl")
        publisher = Publisher(prepared.workspace, prepared.inputs, Running("publisher", log))
        batch = Batch(prepared.expand, folder / "expanded", Running("batch", log))
        runs = prepared.workspace / "runs" / "train_encoder"
        training = Training(prepared.train, runs, Running("training", log))
        pointer = Pointer(prepared.workspace / "bundles" / "CURRENT", log)
        pointer.look()
        stop, asked = threading.Event(), prepared.questions
        with ThreadPoolExecutor() as pool:
            watching = pool.submit(pointer.watch, stop_watching := threading.Event())
            working = [pool.submit(one.work, stop) for one in (publisher, batch, training)]
            working += [pool.submit(clients.load, url, asked, METHODS, log, stop) for _ in range(callers)]
            places = [publisher.running, batch.running, training.running]
            try:
                Injector(cluster, publisher, batch, training, log).follow(faults, seconds)
                stop.set()
                _end(working, places, log)
            finally:
                for event in (stop, stop_watching):
                    event.set()
                for place in places:
                    place.close()
            watching.result()
        pointer.look()
    return log


def _end(working: list[Future[None]], places: list[Running], log: Log) -> None:
    """Wait for what was begun; what does not end in time is ended, and the log says so."""
    _, left = wait(working, END_S)
    if left:
        for place in places:
            if place.close():
                late = f"had not ended {END_S:g} s after the last fault"
                log.add(Ended(log.now(), place.name, -signal.SIGTERM, False, late))
    for one in working:
        one.result()


def found(log: Log, prepared: Prepared, stale_s: float) -> list[Violation]:
    """Return what was violated, in the order of time."""
    due, pointed = prepared.due, log.of(Pointed)
    broken = _broken_bundles(prepared.workspace, pointed)
    violations = [
        Violation(one.at, "half-written", broken[one.bundle]) for one in pointed if one.bundle in broken
    ]
    whole = [one for one in pointed if one.bundle not in broken]
    for one in log.of(Answered):
        if one.body is None or one.body["bundle"] not in broken:
            violations += check_answer(one, whole, due, stale_s)
    for table in log.of(Expanded):
        violations += check_table(table, due)
    for training in log.of(Trained):
        violations += check_training(training, due)
    for ended in log.of(Ended):
        violations += check_command(ended)
    return sorted(violations)


def _broken_bundles(workspace: Path, pointed: Sequence[Pointed]) -> dict[str, str]:
    """Return the bundles that are not whole, and why."""
    found = {}
    for bundle in {one.bundle for one in pointed}:
        try:
            Bundle.open(Workspace.open(workspace), bundle)
        except BundleError as error:
            found[bundle] = str(error)
    return found
