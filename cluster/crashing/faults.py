"""Let the faults of a schedule come to a cluster of this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue

from cluster.crashing.events import Log, Struck
from cluster.crashing.schedule import Fault
from cluster.crashing.victims import candidates
from cluster.crashing.work import Batch, Publisher, Training
from cluster.local import LocalCluster
from cluster.processes import kill, started_here

DOWN_S = 3.0
"""Time for which a node stays away."""

LOOK_S = 0.2


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
    _down: Queue[float] = field(default_factory=Queue)
    """Of each node that died, the second at which another one is to come."""

    def follow(self, faults: Sequence[Fault], until_s: float) -> None:
        """Let each fault come at its second, whatever the one before it takes; return at ``until_s``.

        To be called from the main thread, in which nodes must be started.
        """
        with ThreadPoolExecutor() as pool:
            over = pool.submit(self._let_come, faults, until_s, pool)
            while not over.done() or not self._down.empty():
                with suppress(Empty):
                    self._wait(self._down.get(timeout=LOOK_S))
                    self.cluster.add_node()
            over.result()

    def _let_come(self, faults: Sequence[Fault], until_s: float, pool: ThreadPoolExecutor) -> None:
        begun: list[Future[None]] = []
        for fault in faults:
            self._wait(fault.at_s)
            begun.append(pool.submit(self._come, fault))
        self._wait(until_s)
        for one in begun:
            one.result()

    def _wait(self, until_s: float) -> None:
        time.sleep(max(0.0, until_s - self.log.now()))

    def _come(self, fault: Fault) -> None:
        at = self.log.now()
        self.log.add(Struck(at, fault.kind, self._strike(fault)))

    def _strike(self, fault: Fault) -> str:
        """Return what died, "" if there was nothing of the kind."""
        if fault.kind == "raylet":
            if not (nodes := self.cluster.worker_nodes):  # all are down
                return ""
            died = self.cluster.kill_node(fault.picked(nodes))
            self._down.put(self.log.now() + DOWN_S)
            return died
        if fault.kind == "publisher":
            return self.publisher.running.strike()
        if fault.kind == "batch":
            return self.batch.running.strike()
        if fault.kind == "job stop":
            return self.training.stop_job()
        found = candidates(fault.kind, started_here())
        if not found:
            return ""
        victim = found[fault.picked(len(found))]
        kill(victim)
        return f"{victim.title} {victim.pid}"
