"""Show how far the workers of a training are, through a counter on the cluster that may be lost."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from jobs import console

ANSWER_SECONDS = 10
"""Time that the counter has to answer."""


def start_counter(note: str) -> Any:
    """Start the counter on this process' node: the loss of another one does not take it along."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    counter: Any = ray.remote(Progress)
    return counter.options(num_cpus=0, scheduling_strategy=here).remote(note)


def tell(progress: Any, done: int, total: int, note: str) -> None:
    """Send progress to its actor without waiting; where that is gone, the work goes on unwatched."""
    with suppress(Exception):
        progress.set.remote(done, total, note)


class Progress:
    """A named counter on the cluster: the first worker writes, the driver reads."""

    def __init__(self, note: str) -> None:
        self.state: tuple[int, int, str] = (0, 0, note)

    def set(self, done: int, total: int, note: str) -> None:
        """Say how many steps are done, of how many, and what else is worth showing."""
        self.state = (done, total, note)

    def get(self) -> tuple[int, int, str]:
        """Return what was said last."""
        return self.state


class Watch(threading.Thread):
    """A thread that shows the workers' progress while the driver waits for them.

    To watch is no part of the work: a counter that is lost, or does not answer, ends the watching alone.
    """

    def __init__(self, progress: Any, meter: console.Meter) -> None:
        super().__init__(daemon=True)
        self._progress, self._meter, self._ended = progress, meter, threading.Event()
        self._lost = False

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self.join()
        if not self._lost:
            self._poll()

    def run(self) -> None:
        """Show what was said last, twice a second."""
        while not self._lost and not self._ended.wait(0.5):
            self._poll()

    def _poll(self) -> None:
        import ray

        try:
            done, total, note = ray.get(self._progress.get.remote(), timeout=ANSWER_SECONDS)
        except Exception as error:  # whatever Ray raises: a lost actor, a time-out, its end
            if not self._lost:
                console.say(f"progress is not shown any more ({type(error).__name__}); the training goes on")
            self._lost = True
            return
        self._meter.expect(total)
        # After a restart from a checkpoint the worker is behind what was shown; the bar waits for it.
        self._meter.add(max(0, done - self._meter.done), note)
