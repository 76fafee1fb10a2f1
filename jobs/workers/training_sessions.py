"""Start a worker of a training in one of two ways: by Ray Train, or alone in this process.

A run that began alone resumes under Ray Train, on any number of workers. Ray Train keeps its own record of
what it began, so such a run stays with it (:func:`began_on_ray`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.models import device
from engine.storage.store import Store
from engine.training.checkpoint import STATE
from engine.training.trainer import StepReport, Trainer, Worker
from jobs import console
from jobs.workers.training_run import Run

CHECKPOINTS = "checkpoints"
"""Folder of checkpoints of a run without Ray Train, below the run's; each is named by its step."""

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

        if found := train.get_checkpoint():
            with found.as_directory() as folder:
                yield Path(folder)
        else:
            with local_checkpoint(self._run.folder) as alone:
                yield alone

    def keep(self, step: StepReport, training: Trainer) -> None:
        """Hand metrics to Ray Train, and from the first worker the checkpoint, which all may gather."""
        from ray import train

        metrics = {"step": step.step, "epoch": step.epoch, "loss": step.loss}
        with tempfile.TemporaryDirectory() as folder:
            training.save(Path(folder))
            first = training.worker.is_first
            train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder) if first else None)

    def show(self, done: int, total: int, note: str) -> None:
        """See :class:`jobs.workers.training_run.Session`."""
        self._progress.set.remote(done, total, note)


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
        """Publish the checkpoint, then remove those before it."""
        old = _checkpoints(self._folder)
        new = self._folder / CHECKPOINTS / f"{step.step:010}"
        staged = new.staging()
        training.save(staged)
        new.publish_folder(staged, last=STATE)
        for one in old:
            if one != new:
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
    """Yield a local folder with the newest whole checkpoint of a :class:`LocalSession`; None if none is."""
    found = _checkpoints(run)
    if not found:
        yield None
    elif run.is_local:
        yield Path(found[-1].path)
    else:
        with tempfile.TemporaryDirectory() as folder:
            for file in found[-1].files():
                file.fetch(Path(folder) / file.name)
            yield Path(folder)


def _checkpoints(run: Store) -> list[Store]:
    """Return the whole checkpoints of a run without Ray Train, oldest first."""
    return [_folder(state) for state in (run / CHECKPOINTS).files(f"/{STATE}")]


def _folder(file: Store) -> Store:
    return Store(file.fs, file.path.rpartition("/")[0], file.is_local)
