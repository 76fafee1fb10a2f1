"""Run a worker over a list of tasks: in this process, or by a pool of actors on Ray Data.

A worker is a plain class: its constructor opens what it needs (models, files), a call takes one task and
returns one result. It knows nothing of Ray, and is tested without it; what crosses processes (the
constructor's arguments, tasks, results) is plain data of importable modules.
"""

from __future__ import annotations

import os
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from engine.errors import UserError
from engine.models import device
from engine.storage.parts import PartFolder
from engine.storage.store import Store
from jobs import console
from jobs.workers.disk_use import check_disk
from jobs.workers.failures import RESTARTS, deaths_in_words
from jobs.workers.lost_nodes import Reader, Watchdog, all_rows, dead_nodes

Task = TypeVar("Task")
Result = TypeVar("Result")
T = TypeVar("T")

Worker = Callable[..., Callable[[Task], Result]]
"""A class whose instances take a task and return a result."""

Arguments = tuple[Any, ...]
"""Arguments of a worker's constructor."""


PARTS_KEPT = "the parts that were made are kept, and the same command makes the rest"


class Executor(Protocol):
    """An executor of tasks, here or on a cluster."""

    def map(
        self,
        worker: Worker[Task, Result],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """Yield each task's place and its result, in the order in which they are done.

        Args:
            worker: a class of an importable module.
            arguments: of its constructor.
            tasks: one a call.
            gpu: whether the worker uses one if there is any.

        Raises:
            UserError: what a worker raised, as itself, wherever it ran.
        """
        ...


class LocalExecutor:
    """An executor in this process, one task after another."""

    def map(
        self,
        worker: Worker[Task, Result],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`Executor`."""
        if not tasks:
            return
        device.grant(gpu=gpu)
        work = worker(*arguments)
        for place, task in enumerate(tasks):
            yield place, work(task)


class RayExecutor:
    """An executor on a pool of actors of the cluster that this process is connected to.

    Args:
        workers: actors; default: as many as fit on the nodes, a core each, or a GPU where workers use one.
        shared: addresses of folders that every node must see; they are checked before the first work.
    """

    def __init__(self, workers: int | None = None, shared: Sequence[str] = ()) -> None:
        self._workers, self._unchecked = workers, list(shared)

    def map(
        self,
        worker: Worker[Task, Result],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`Executor`."""
        if not tasks:
            return
        from cluster.session import unwrapped
        from cluster.sharing import check_shared

        check_shared(self._unchecked)
        self._unchecked = []
        with unwrapped(), deaths_in_words(PARTS_KEPT):
            for row in all_rows(
                lambda places: Reader(self._pool(worker, arguments, {p: tasks[p] for p in places}, gpu)),
                range(len(tasks)),
                lambda row: int(row["place"]),
                lambda: Watchdog(dead_nodes),
            ):
                yield int(row["place"]), pickle.loads(row["result"])

    def _pool(
        self,
        worker: Worker[Task, Result],
        arguments: tuple[Any, ...],
        tasks: Mapping[int, Task],
        gpu: bool,
    ) -> Any:
        """Return a ``ray.data.Dataset`` of the results of tasks and of their places."""
        import ray

        gpus, most = _room(gpu)
        size = min(self._workers or most, most, len(tasks))
        if self._workers and size < min(self._workers, len(tasks)):
            console.say(
                f"--workers {self._workers}: {most} fit on this cluster at once, so {size} are started"
            )
        rows = [{"place": place, "task": pickle.dumps(task)} for place, task in tasks.items()]
        return actor_pool(
            ray.data.from_items(rows, override_num_blocks=len(rows)),
            _Actor,
            fn_constructor_args=(worker, arguments, bool(gpus)),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=size),
            num_cpus=None if gpus else 1,
            num_gpus=1 if gpus else None,
        )


def actor_pool(data: Any, actor: type, **options: Any) -> Any:
    """Return a ``ray.data.Dataset`` that a pool of actors makes, which are started again, but not for ever.

    What they have in hand is sent again as often as they are. With a bound of its own, tries to reach the
    actors of a lost node would use it up before the node counts as dead, which may take a minute.

    Args:
        data: the dataset that they take.
        actor: takes a batch.
        options: of ``map_batches``.
    """
    with warnings.catch_warnings():
        # It is said to have names of their own for what Ray takes; it has none for these two.
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        return data.map_batches(actor, max_restarts=RESTARTS, max_task_retries=-1, **options)


def _room(gpu: bool) -> tuple[int, int]:
    """Return the GPUs that workers get, and how many workers fit on the connected cluster, node by node.

    Raises:
        UserError: not one fits.
    """
    from cluster.capacity import describe, living_nodes, room

    nodes = living_nodes()
    if gpu and (gpus := room(nodes, 0, 1)):
        return gpus, gpus
    if not (most := room(nodes, 1)):
        raise UserError(
            f"a worker needs a whole core of one node, and none has one ({describe(nodes)}): start the nodes "
            "with more cores (ray start --num-cpus)"
        )
    return 0, most


class _Actor:
    """A worker as Ray Data calls it: with a batch of one row.

    The worker is opened at the first call: of an actor whose constructor fails Ray keeps a text only, and a
    user's mistake must reach the driver as itself.
    """

    def __init__(self, worker: Worker[Any, Any], arguments: tuple[Any, ...], gpu: bool) -> None:
        self._worker, self._arguments, self._gpu = worker, arguments, gpu
        self._work: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Return the place of the batch's task and its result."""
        if self._work is None:
            device.grant(self._gpu, threads=1)
            self._work = self._worker(*self._arguments)
        result = self._work(pickle.loads(batch["task"][0]))
        return {"place": [int(batch["place"][0])], "result": [pickle.dumps(result)]}


class AutoExecutor:
    """An executor in this process while one worker is enough, else on Ray, to which it then connects.

    One worker is enough for one task, and where one was asked for, unless there is a cluster to use: this
    process is connected already, or ``RAY_ADDRESS`` names one (as ``ray job submit`` does). Use it as a
    context manager; a cluster that it started ends with the block.

    Args:
        workers: see :class:`RayExecutor`.
        shared: see there.
    """

    def __init__(self, workers: int | None = None, shared: Sequence[str] = ()) -> None:
        self._workers, self._shared = workers, shared
        self._open = ExitStack()
        self._ray: RayExecutor | None = None

    def __enter__(self) -> AutoExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._ray = None
        return self._open.__exit__(kind, error, trace)

    def map(
        self,
        worker: Worker[Task, Result],
        arguments: tuple[Any, ...],
        tasks: Sequence[Task],
        gpu: bool = False,
    ) -> Iterator[tuple[int, Result]]:
        """See :class:`Executor`."""
        if self._ray is None and one_is_enough(self._workers, len(tasks)):
            yield from LocalExecutor().map(worker, arguments, tasks, gpu)
            return
        if self._ray is None:
            from cluster.session import session

            self._open.enter_context(session())
            self._ray = RayExecutor(self._workers, self._shared)
        yield from self._ray.map(worker, arguments, tasks, gpu)


def in_order(results: Iterable[tuple[int, T]]) -> Iterator[T]:
    """Yield what :meth:`Executor.map` yields in the order of the tasks; what comes early waits."""
    waiting: dict[int, T] = {}
    turn = 0
    for place, result in results:
        waiting[place] = result
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def given_or_auto(executor: Executor | None, *shared: Store) -> AbstractContextManager[Executor]:
    """Return a context of the executor that was given, or of an :class:`AutoExecutor`, which ends with it.

    Args:
        executor: None: an :class:`AutoExecutor`.
        shared: the folders that its workers read and write.
    """
    return AutoExecutor(shared=[s.uri for s in shared]) if executor is None else nullcontext(executor)


def one_is_enough(workers: int | None, tasks: int) -> bool:
    """Return whether so many tasks are done in this process, see :class:`AutoExecutor`."""
    return not has_cluster() and (workers == 1 or tasks <= 1)


def has_cluster() -> bool:
    """Return whether there is a cluster to use: one named by the environment, or connected already."""
    if os.environ.get("RAY_ADDRESS"):
        return True
    ray = sys.modules.get("ray")  # not imported: not connected
    return ray is not None and bool(ray.is_initialized())


@dataclass(frozen=True)
class PartsResult(Generic[T]):
    """The result of each part, in the order of the tasks; and how many were made now, and kept."""

    parts: dict[str, T]
    made: int
    kept: int


def make_parts(
    parts: PartFolder[T],
    tasks: Mapping[str, Task],
    worker: Worker[Task, T],
    arguments: tuple[Any, ...],
    executor: Executor,
    label: str,
    size: Callable[[Task], int] = lambda task: 1,
    gpu: bool = False,
    check: Callable[[], None] = lambda: None,
    stored: Callable[[Task], float] = lambda task: 0,
) -> PartsResult[T]:
    """Make the parts of a folder that are not there yet, and show the progress.

    Args:
        parts: the folder.
        tasks: the worker's task for each part, by the part's name.
        worker: writes a task's part and returns what ``parts.read`` reads of it.
        arguments: of the worker's constructor.
        executor: where the worker runs.
        label: of the progress bar.
        size: of a task, in what the bar counts.
        gpu: whether the worker uses one if there is any.
        check: called after the work; if it raises, what the parts are made from has changed meanwhile, and
            those that were made now are removed.
        stored: bytes that a task's part will take, about; 0: too few to speak of.

    Raises:
        StorageError: the disk has no room for the parts that are missing.
    """
    found = parts.finished(tasks)
    kept = len(found)
    if kept:
        console.say(f"{parts.folder.uri}: {kept} of {len(tasks)} parts are there already and are kept")
    todo = [name for name in tasks if name not in found]
    check_disk(parts.folder, int(sum(stored(tasks[name]) for name in todo)))
    with _removed_unless(parts, todo, check):
        if todo:
            with console.meter(label, sum(size(tasks[name]) for name in todo)) as meter:
                for place, result in executor.map(worker, arguments, [tasks[name] for name in todo], gpu):
                    found[todo[place]] = result
                    meter.add(size(tasks[todo[place]]))
    return PartsResult({name: found[name] for name in tasks}, len(todo), kept)


@contextmanager
def _removed_unless(
    parts: PartFolder[Any], names: Sequence[str], check: Callable[[], None]
) -> Iterator[None]:
    """Run a block that makes parts; afterwards, also where it fails, remove them if ``check`` raises."""
    try:
        yield
    finally:
        try:
            check()
        except UserError:
            for name in names:
                for suffix in parts.suffixes:
                    parts.file(name, suffix).delete()
            raise
