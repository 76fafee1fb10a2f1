"""Start a worker of a training in one of two ways: by Ray Train, or alone in this process.

A run that began alone resumes under Ray Train, on any number of workers. Ray Train keeps its own record of
what it began, so such a run stays with it (:func:`began_on_ray`).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import FormatError
from engine.models import device
from engine.storage.store import Store
from engine.training.checkpoint import STATE, fault_in_checkpoint, step_of
from engine.training.trainer import StepReport, Trainer, Worker
from jobs import console
from jobs.workers.progress import tell
from jobs.workers.training_run import Run

CHECKPOINTS = "checkpoints"
"""Folder of checkpoints of a run without Ray Train, below the run's; each is named by its step."""

SNAPSHOT = "checkpoint_manager_snapshot.json"
"""Ray Train's record of a run's checkpoints, in the run's folder."""

OF_RAY_TRAIN = "checkpoint_"
"""Prefix of the names of Ray Train's checkpoints, which lie in the run's folder itself."""


class RaySession:
    """A worker that Ray Train started.

    Args:
        run: its description.
        cores: that it may use.
        progress: handle of an actor with a method ``set``.
    """

    def __init__(self, run: Run[Any], cores: float, progress: Any) -> None:
        self._run, self._cores, self._progress = run, cores, progress

    @cached_property
    def worker(self) -> Worker:
        """See :class:`jobs.workers.training_run.Session`."""
        from ray import train
        from ray.train.torch import get_device

        context = train.get_context()
        where = get_device() if self._run.gpu else device.worker_device(gpu=False, cores=self._cores)
        return Worker(context.get_world_rank(), context.get_world_size(), where)

    @contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        """See :class:`jobs.workers.training_run.Session`."""
        from ray import train

        run, found = self._run.folder, train.get_checkpoint()
        if found and not fault_in_checkpoint(Store(run.fs, found.path, run.is_local)):
            with found.as_directory() as folder:
                yield Path(folder)
        else:
            with local_checkpoint(run) as whole:
                yield whole

    def keep(self, step: StepReport, training: Trainer) -> None:
        """Hand metrics to Ray Train, and from each worker the files of the checkpoint that it wrote."""
        from ray import train

        metrics = {"step": step.step, "epoch": step.epoch, "loss": step.loss}
        with tempfile.TemporaryDirectory() as folder:
            training.save(Path(folder))
            wrote = any(Path(folder).iterdir())
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder) if wrote else None)

    def show(self, done: int, total: int, note: str) -> None:
        """See :class:`jobs.workers.training_run.Session`."""
        tell(self._progress, done, total, note)


class LocalSession:
    """The only worker of a run, in this process, on the CPU.

    Args:
        run: its description.
        meter: shows how far it is.
    """

    def __init__(self, run: Run[Any], meter: console.Meter) -> None:
        self._folder, self._meter = run.folder, meter
        device.grant(gpu=False)
        self.worker = Worker(device=device.worker_device(gpu=False))

    @contextmanager
    def checkpoint(self) -> Iterator[Path | None]:
        """See :class:`jobs.workers.training_run.Session`."""
        with local_checkpoint(self._folder) as found:
            yield found

    def keep(self, step: StepReport, training: Trainer) -> None:
        """Publish the checkpoint, then remove all but the one before it, to which a run can fall back."""
        old = [_folder(state) for state in (self._folder / CHECKPOINTS).files(f"/{STATE}")]
        new = self._folder / CHECKPOINTS / f"{step.step:010}"
        staged = new.staging()
        training.save(staged)
        new.publish_folder(staged, last=STATE)
        before = [one for one in old if one.name < new.name][-1:]
        for one in old:
            if one not in (new, *before):
                one.delete()

    def show(self, done: int, total: int, note: str) -> None:
        """See :class:`jobs.workers.training_run.Session`."""
        self._meter.expect(total)
        self._meter.add(done - self._meter.done, note)


def began_on_ray(run: Store) -> bool:
    """Return whether Ray Train has a checkpoint of a run, given the run's folder."""
    return any(_folder(state).name.startswith(OF_RAY_TRAIN) for state in run.files(f"/{STATE}"))


@contextmanager
def local_checkpoint(run: Store) -> Iterator[Path | None]:
    """Yield a local folder with the newest whole checkpoint of a run; None if it has none yet.

    Raises:
        FormatError: it has some, and none of them is whole.
    """
    found = whole_checkpoint(run)
    if found is None:
        yield None
    elif run.is_local:
        yield Path(found.path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for file in found.files():
                file.fetch(Path(folder) / file.name)
            yield Path(folder)


def whole_checkpoint(run: Store, say: Callable[[str], None] = lambda text: None) -> Store | None:
    """Return a run's newest checkpoint whose files are whole, whatever made it; None if it has none yet.

    Args:
        run: the run's folder.
        say: called with a sentence for each newer one that is passed over.

    Raises:
        FormatError: it has some, and none of them is whole.
    """
    passed_over: list[str] = []
    for one in reversed(_checkpoints(run)):
        fault = fault_in_checkpoint(one)
        if fault is None:
            for text in passed_over:
                say(f"{text}; the run goes on from the checkpoint before it, {one.name}")
            return one
        passed_over.append(f"{one.uri}: {fault}")
    if passed_over:
        raise FormatError(f"{passed_over[0]}, and no other checkpoint is whole; start afresh with --restart")
    return None


def drop_broken_snapshot(run: Store, say: Callable[[str], None]) -> None:
    """Remove Ray Train's record of a run if it cannot be read, or names a checkpoint that is gone.

    Ray Train would not begin with it. Without it, the workers look for the run's checkpoints themselves.
    """
    file = run / SNAPSHOT
    content = file.read_if_there()
    if content is None:
        return
    try:
        named = [one["checkpoint_dir_name"] for one in json.loads(content)["checkpoint_results"]]
        gone = [name for name in named if not (run / name).exists()]
        fault = f"names {gone[0]}, which is gone" if gone else ""
    except (ValueError, KeyError, TypeError):
        fault = "cannot be read"
    if fault:
        say(f"{file.uri}: {fault}; it is removed, and the run goes on from the checkpoints that are there")
        file.delete()


def _checkpoints(run: Store) -> list[Store]:
    """Return the checkpoints of a run that have a state, whole or not, in the order of their steps.

    A state that cannot be read says no step: its checkpoint is taken for one of the newest.
    """
    found = [_folder(state) for state in run.files(f"/{STATE}")]
    steps = [(step_of(one), one) for one in found if _made_by_a_session(run, one)]
    newest = max((step for step, _ in steps), default=0)

    def order(pair: tuple[int, Store]) -> tuple[int, bool, str]:
        step, one = pair
        # What Ray Train made comes later: a run that it began stays with it.
        return (step if step >= 0 else newest, one.name.startswith(OF_RAY_TRAIN), one.path)

    return [one for _, one in sorted(steps, key=order)]


def _made_by_a_session(run: Store, checkpoint: Store) -> bool:
    parent = checkpoint.path.rpartition("/")[0]
    return parent == (run / CHECKPOINTS).path or (
        parent == run.path and checkpoint.name.startswith(OF_RAY_TRAIN)
    )


def _folder(file: Store) -> Store:
    return Store(file.fs, file.path.rpartition("/")[0], file.is_local)
