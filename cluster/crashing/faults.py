"""Let the faults of a schedule come to a cluster of this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from cluster.crashing import victims
from cluster.crashing.events import Log, Struck
from cluster.crashing.schedule import Fault
from cluster.crashing.work import Batch, Publisher, Training
from cluster.local import LocalCluster

DOWN_S = 3.0
"""Time for which a node stays away."""


@dataclass
class Injector:
    """Lets faults come.

    Args:
        cluster: whose nodes die.
        publisher, batch, training: whose drivers do.
        log: of the run.
    """

    cluster: LocalCluster
    publisher: Publisher
    batch: Batch
    training: Training
    log: Log
    _nodes: threading.Lock = field(default_factory=threading.Lock)

    def follow(self, faults: Sequence[Fault], until_s: float) -> None:
        """Let each fault come at its second, whatever the one before it takes; return at ``until_s``."""
        with ThreadPoolExecutor() as pool:
            begun: list[Future[None]] = []
            for fault in faults:
                time.sleep(max(0.0, fault.at_s - self.log.now()))
                begun.append(pool.submit(self._come, fault))
            time.sleep(max(0.0, until_s - self.log.now()))
            for one in begun:
                one.result()

    def _come(self, fault: Fault) -> None:
        at = self.log.now()
        self.log.add(Struck(at, fault.kind, self._strike(fault)))

    def _strike(self, fault: Fault) -> str:
        """Return what died, "" if there was nothing of the kind."""
        if fault.kind == "raylet":
            with self._nodes:
                died = self.cluster.kill_node(fault.picked(self.cluster.worker_nodes))
                time.sleep(DOWN_S)
                self.cluster.add_node()
            return died
        if fault.kind == "publisher":
            return self.publisher.running.strike()
        if fault.kind == "batch":
            return self.batch.running.strike()
        if fault.kind == "job stop":
            return self.training.stop_job()
        found = victims.candidates(fault.kind, victims.started_here())
        if not found:
            return ""
        victim = found[fault.picked(len(found))]
        victims.kill(victim)
        return f"{victim.title} {victim.pid}"
