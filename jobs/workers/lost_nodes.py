"""Read the rows of a Ray Data pass, and begin it again where it waits for what a lost node took with it.

Tasks are bound to the actors that they were given to. Those of a lost node are started again where there is
room; where the living actors hold all cores and wait for what the lost ones had in hand, Ray Data waits for
ever. The pass is then ended and begun again with what is missing, on the nodes that live. A pass that is only
slow is told of, and left alone.
"""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from jobs import console
from jobs.workers.failures import RESTARTS, WorkerDiedError, worker_death

T = TypeVar("T")
RowT_co = TypeVar("RowT_co", covariant=True)

POLL_S = 5.0
"""Time between two looks at the nodes while no row comes."""

QUIET_S = 180.0
"""Time without a row, after a node was lost, that a pass is given at least."""

LONGEST_WAITS = 3
"""And so many times the longest that it took for a row before, its models' loading at the start among it."""

END_S = 60.0
"""Time that Ray has to end a pass."""

AHEAD = 16
"""Rows that are read ahead of who takes them."""


AGAIN = "what was made is kept: look at the nodes (`ray status`), and run the same command again"


class LostNodeError(Exception):
    """A node was lost, and no row came any more: says so in words."""


class Watchdog:
    """Tell from the time without a row, and from the nodes that are lost, whether a pass can still end.

    Args:
        dead: returns the address of each dead node by its id.
        say: tells the person who watches.
        clock: seconds.
    """

    def __init__(
        self,
        dead: Callable[[], Mapping[str, str]],
        say: Callable[[str], None] = console.say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dead, self._say, self._clock = dead, say, clock
        self._before = set(dead())
        self._lost: dict[str, str] = {}
        self._lost_at = self._since = clock()
        self._longest = 0.0
        self._told_at = 0.0

    def begin_wait(self) -> None:
        """Note that a row is waited for from now on."""
        self._since, self._told_at = self._clock(), 0.0

    def end_wait(self) -> None:
        """Note that the row came."""
        self._longest = max(self._longest, self._clock() - self._since)

    def check(self) -> None:
        """Look at the nodes while the row does not come.

        Raises:
            LostNodeError: a node was lost since the pass began, and nothing came for too long since.
        """
        now, quiet = self._clock(), max(QUIET_S, LONGEST_WAITS * self._longest)
        lost = {node: address for node, address in self._dead().items() if node not in self._before}
        if lost.keys() - self._lost.keys():
            self._lost, self._lost_at = lost, now
        waited = now - self._since
        if self._lost and now - max(self._since, self._lost_at) >= quiet:
            names = ", ".join(sorted(set(self._lost.values())))
            raise LostNodeError(f"no result came for {waited:.0f} s after the node at {names} was lost")
        if not self._lost and waited >= max(quiet, 2 * self._told_at):
            self._told_at = waited
            self._say(f"no result came for {waited:.0f} s; no node was lost, so the work goes on")


class Rows(Protocol[RowT_co]):
    """The rows of a pass that has begun."""

    def take(self, seconds: float) -> RowT_co | None:
        """Return the next row, None if it does not come in time.

        Raises:
            StopIteration: that was the last.
            Exception: what the pass raised.
        """
        ...

    def end(self) -> bool:
        """End the pass, whatever it is at; return whether it ended in time."""
        ...


def all_rows(
    begin: Callable[[Sequence[T]], Rows[Any]],
    tasks: Sequence[T],
    task_of: Callable[[Any], T],
    watchdog: Callable[[], Watchdog],
) -> Iterator[Any]:
    """Yield a row for each task, once, in the order in which they come.

    Args:
        begin: begins a pass over some tasks.
        tasks: all, each another.
        task_of: returns the task of a row.
        watchdog: of a pass that begins.

    Raises:
        WorkerDiedError: a pass could not be ended, or waited for a lost node several times in a row.
        RuntimeError: a pass ended without all rows.
    """
    left, in_vain = dict.fromkeys(tasks), 0
    while left:
        watch = watchdog()  # before the pass looks for its nodes: none may be lost unseen between the two
        rows, before, ended_by = begin(list(left)), len(left), ""
        try:
            for row in _watched(rows, watch):
                if task_of(row) in left:
                    del left[task_of(row)]
                    yield row
        except LostNodeError as error:
            ended_by = str(error)
        except Exception as error:
            # Each actor is started again a few times in all, however long the pass: where it brought rows,
            # it was not for the same work.
            death = worker_death(error)
            if death is None or len(left) == before:
                raise
            ended_by = f"worker processes died too often ({death})"
        finally:
            ended = rows.end()
        if not ended_by:
            if left:
                raise RuntimeError(f"Ray Data ended without the results of {len(left)} of {before} tasks")
            return
        in_vain = in_vain + 1 if len(left) == before else 1
        if in_vain > RESTARTS:
            raise WorkerDiedError(f"{ended_by}, {in_vain} times in a row; {AGAIN}")
        if not ended:  # it holds cores that a new pass needs
            raise WorkerDiedError(f"{ended_by}, and Ray did not end the work in {END_S:.0f} s; {AGAIN}")
        console.say(f"{ended_by}; begun again with the {len(left)} of {len(tasks)} parts that are missing")


def _watched(rows: Rows[T], watchdog: Watchdog) -> Iterator[T]:
    """Yield the rows of a pass while there is hope; see :meth:`Watchdog.check`."""
    while True:
        watchdog.begin_wait()
        try:
            while (row := rows.take(POLL_S)) is None:
                watchdog.check()
        except StopIteration:
            return
        watchdog.end_wait()
        yield row


def dead_nodes() -> dict[str, str]:
    """Return the address of each dead node of the connected cluster by its id.

    One that an autoscaler took away because nothing ran on it is none: nothing was lost with it.
    """
    import ray
    from ray.core.generated import common_pb2

    reasons: Any = common_pb2  # what is generated has no types
    idle = reasons.NodeDeathInfo.Reason.AUTOSCALER_DRAIN_IDLE
    return {
        node["NodeID"]: node["NodeManagerAddress"]
        for node in ray.nodes()
        if not node["Alive"] and node["DeathReason"] != idle
    }


class Reader(threading.Thread):
    """The rows of a ``ray.data.Dataset``, read in a thread of their own: see :class:`Rows`.

    Args:
        dataset: is run as it is read.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__(daemon=True)
        dataset.context.custom_execution_callback_classes = [ShowExecutor]
        # Ray's own guard would end a pass whose model takes half an hour for a part.
        dataset.context.execution_no_progress_timeout_s = -1
        self._dataset = dataset
        self._rows: queue.Queue[tuple[Any, BaseException | None]] = queue.Queue(AHEAD)
        self._ending = threading.Event()
        self.executor: Any = None
        """What runs the pass, from its beginning on."""
        self.start()

    def run(self) -> None:
        """Read all rows, unless the pass is ended before."""
        try:
            for row in self._dataset.iter_rows():
                self._put(row, None)
                if self._ending.is_set():
                    return
            self._put(None, StopIteration())
        except BaseException as error:  # whatever it is, it is who takes the rows that must see it
            self._put(None, error)

    def _put(self, row: Any, error: BaseException | None) -> None:
        while not self._ending.is_set():
            try:
                self._rows.put((row, error), timeout=1)
            except queue.Full:
                continue
            return

    def take(self, seconds: float) -> Any:
        """See :class:`Rows`."""
        try:
            row, error = self._rows.get(timeout=seconds)
        except queue.Empty:
            return None
        if error is not None:
            raise error
        return row

    def end(self) -> bool:
        """See :class:`Rows`."""
        self._ending.set()
        waited_for: list[threading.Thread] = [self]
        if self.executor is not None:
            # Ray Data waits without a limit for tasks to end. It kills the actors first: those that are to be
            # started again, as their node was lost, would else hold cores.
            shut_down = self.executor.shutdown
            waited_for.insert(0, threading.Thread(target=shut_down, kwargs={"force": True}, daemon=True))
            waited_for[0].start()
        for one in waited_for:
            one.join(END_S)
        if any(one.is_alive() for one in waited_for):
            return False
        # Ray Data forgets its actors and leaves them to Python's collector. Until that comes by they keep
        # their cores, for which a training may wait.
        self._dataset = self.executor = None
        gc.collect()
        return True


class ShowExecutor:
    """Show a :class:`Reader` what runs its pass. Ray Data makes one in the thread that begins the pass."""

    def before_execution_starts(self, executor: Any) -> None:
        """See Ray Data's ``ExecutionCallback``."""
        reader = threading.current_thread()
        if isinstance(reader, Reader):
            reader.executor = executor

    def on_execution_step(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_succeeds(self, executor: Any) -> None:
        """Do nothing."""

    def after_execution_fails(self, executor: Any, error: Exception) -> None:
        """Do nothing."""
