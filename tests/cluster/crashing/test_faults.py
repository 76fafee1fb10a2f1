"""Faults come at their seconds, whatever the one before takes, and nodes come back from the main thread."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, cast

import pytest

from cluster.crashing import faults
from cluster.crashing.commands import Running
from cluster.crashing.events import Log, Struck
from cluster.crashing.faults import Injector
from cluster.crashing.schedule import Fault
from cluster.crashing.work import Batch, Publisher, Training


class Nodes:
    """A cluster of two nodes besides the head that only notes what happens to it."""

    def __init__(self) -> None:
        self.worker_nodes, self.added = 2, list[threading.Thread]()
        self.died = threading.Event()

    def kill_node(self, place: int) -> str:
        self.worker_nodes -= 1
        self.died.set()
        return f"node {place}"

    def add_node(self) -> None:
        self.worker_nodes += 1
        self.added.append(threading.current_thread())


class SlowStop(Training):
    """A training whose stop ends only once a node has died."""

    def stop_job(self) -> str:
        return "crash-1" if NODES.died.wait(20) else "the next fault waits for this one"


NODES = Nodes()


def test_faults_come_in_time_and_nodes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "DOWN_S", 0.05)
    monkeypatch.setattr(faults, "LOOK_S", 0.01)
    with Log(tmp_path / "events.jsonl") as log:
        idle = Running("idle", log)
        injector = Injector(
            cast(Any, NODES),
            Publisher(tmp_path, [], idle),
            Batch([], tmp_path, idle),
            SlowStop([], tmp_path, idle),
            log,
        )
        coming = [
            Fault(0.02, "job stop", 0.5),
            Fault(0.05, "raylet", 0.9),
            Fault(0.06, "raylet", 0.1),
            Fault(0.07, "raylet", 0.1),
            Fault(0.08, "batch", 0.1),
        ]
        injector.follow(coming, 0.1)
        struck = sorted(log.of(Struck))
    assert [(one.kind, one.victim) for one in struck] == [
        ("job stop", "crash-1"),
        ("raylet", "node 1"),
        ("raylet", "node 0"),
        ("raylet", ""),
        ("batch", ""),
    ]
    assert NODES.added == [threading.main_thread()] * 2
