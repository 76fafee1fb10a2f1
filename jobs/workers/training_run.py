"""Run one worker of any training, whatever started it (a :class:`Session`).

Open the training or resume it, take the steps, decide about checkpoints together, and write what was
trained. The first worker also follows the run: TensorBoard events, progress, and in the end the summary.
"""

from __future__ import annotations

import json
import resource
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch

from engine.errors import UserError
from engine.storage.staging import staged_removed
from engine.storage.store import Store
from engine.storage.whole import sizes_of
from engine.storage.workspace import Workspace
from engine.training.settings import TrainerSettings
from engine.training.trainer import DivergedError, StepReport, Trainer, Worker
from jobs import console
from jobs.workers.checkpoint_pace import CheckpointPace
from jobs.workers.summaries import FILES, SUMMARY

TrainerT = TypeVar("TrainerT", bound=Trainer)


@dataclass(frozen=True)
class Run(ABC, Generic[TrainerT]):
    """The description of a run for every worker, with what differs between kinds of training."""

    job: ClassVar[str]
    """Folder of its runs."""
    artifact: ClassVar[str]
    """Folder of what was trained, below the run's."""
    unit: ClassVar[str]
    """Unit of :meth:`Trainer.amount`."""
    first_note: ClassVar[str] = "first step"
    """Shown until a step is done."""

    workspace: str
    name: str
    settings: TrainerSettings
    gpu: bool
    """One GPU a worker and NCCL; else gloo on the CPU."""
    checkpoint_seconds: float
    """Time between checkpoints at least."""
    checkpoint_share: float = field(default=1.0, kw_only=True)
    """Part of the time that writing them takes at most: where it takes long, they are made less often."""

    @property
    def folder(self) -> Store:
        """The folder of the run."""
        return Workspace.open(self.workspace).runs(self.job) / self.name

    @abstractmethod
    def open(self, worker: Worker, checkpoint: Path | None) -> TrainerT:
        """Open a worker's part of the training."""

    @abstractmethod
    def write(self, training: TrainerT, folder: Path) -> str:
        """Write what was trained, on all workers; the first one writes into an existing folder.

        Returns:
            The name of the file that is to arrive last.
        """

    @abstractmethod
    def summary(self, training: TrainerT) -> dict[str, Any]:
        """Return the entries of the run's summary that are its kind's own."""

    def events(self, training: TrainerT) -> dict[str, float]:
        """Return scalars for TensorBoard besides loss and learning rate, after a step."""
        return {}


class Session(Protocol):
    """The services that a worker has from what started it: Ray Train, or this process."""

    @property
    def worker(self) -> Worker:
        """The worker's rank, the number of workers, and its device."""
        ...

    def checkpoint(self) -> AbstractContextManager[Path | None]:
        """Return a context of the newest checkpoint's local folder; None if there is none yet."""
        ...

    def keep(self, step: StepReport, training: Trainer) -> None:
        """Make a checkpoint that a later life of the run finds. All workers call it."""
        ...

    def show(self, done: int, total: int, note: str) -> None:
        """Tell the user how many steps are done, of how many, and what else is worth showing."""
        ...


def work(run: Run[Any], session: Session) -> None:
    """Do one worker's part of a run, from its newest checkpoint to its end.

    Raises:
        UserError: the training diverged; its last good checkpoint stays, and nothing is published.
    """
    with staged_removed():
        _work(run, session)


def _work(run: Run[Any], session: Session) -> None:
    worker = session.worker
    with session.checkpoint() as checkpoint:
        training = run.open(worker, checkpoint)
    follow = _Follow(run, training, session) if worker.is_first else None
    _take_steps(run, session, training, follow)
    staged = (run.folder / run.artifact).staging() if worker.is_first else Path()
    last = run.write(training, staged)
    memory = peak_memory(worker)
    if follow:
        follow.finish(staged, last, memory)


def _take_steps(run: Run[TrainerT], session: Session, training: TrainerT, follow: _Follow | None) -> None:
    """Take the steps that are left, and make checkpoints of them."""
    worker, pace = training.worker, CheckpointPace(run.checkpoint_seconds, run.checkpoint_share)
    kept = training.step  # of the checkpoint that it went on from
    try:
        for step in training.run():
            if follow:
                follow(step)
            # Every worker must report together; the first one's clock decides.
            if agree(pace.due(), worker) or step.step == training.total_steps:
                began = time.monotonic()
                session.keep(step, training)
                if (said := pace.wrote(time.monotonic() - began)) and worker.is_first:
                    console.say(said)
                kept = step.step
    except DivergedError as error:
        there = f"its checkpoint of step {kept} is kept" if kept else "there is no checkpoint yet"
        raise UserError(f"{run.folder.uri}: {error}; nothing was published, {there}") from None


def agree(due: bool, worker: Worker) -> bool:
    """Return the first worker's answer on all workers."""
    if worker.world == 1:
        return due
    flag = torch.tensor([float(due)], device=worker.device)  # NCCL sees its own device only
    torch.distributed.broadcast(flag, 0)
    return bool(flag)


def peak_memory(worker: Worker) -> dict[str, int]:
    """Return the most that a worker's process took, and that its GPU took, in MiB, over all workers."""
    gpu = torch.cuda.max_memory_allocated() if worker.device.type == "cuda" else 0
    process = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    used = torch.tensor([process, gpu >> 20], device=worker.device)
    if worker.world > 1:
        torch.distributed.all_reduce(used, torch.distributed.ReduceOp.MAX)
    process, card = used.tolist()
    return {"process": process} | ({"gpu": card} if gpu else {})


class _Follow:
    """The first worker's reports: TensorBoard events, progress, what was trained."""

    def __init__(self, run: Run[Any], training: Trainer, session: Session) -> None:
        self._run, self._training, self._session = run, training, session
        self._folder = run.folder
        self._events = Events(self._folder)
        self._shown = self._seconds = 0.0
        self._amount = 0
        self._resumed_at = training.step
        session.show(training.step, training.total_steps, run.first_note)

    def __call__(self, step: StepReport) -> None:
        self._events.add(step.step, train_loss=step.loss, train_learning_rate=step.learning_rate)
        self._events.add(step.step, **self._run.events(self._training))
        self._amount += step.amount
        self._seconds += step.seconds
        now = time.monotonic()
        if now - self._shown < 0.5 and step.step != self._training.total_steps:
            return
        self._shown = now
        unit = self._run.unit
        self._events.add(step.step, **{f"train_{unit}_per_second": self._rate})
        note = f"epoch {step.epoch + 1} loss {step.loss:.3f} {self._rate:.0f} {unit}/s"
        self._session.show(step.step, self._training.total_steps, note)

    @property
    def _rate(self) -> float:
        return self._amount / self._seconds if self._seconds else 0.0

    def finish(self, staged: Path, last: str, memory: dict[str, int]) -> None:
        """Publish what was trained, the loss curve and the events."""
        training, run = self._training, self._run
        summary = {
            "run": run.name,
            **run.summary(training),
            "steps": training.step,
            "resumed_at": self._resumed_at,
            "epochs": training.settings.epochs,
            "loss": training.losses[-1] if training.losses else None,
            **training.curves,
            f"{run.unit}_per_second": round(self._rate, 1),
            "seconds": round(self._seconds, 1),
            "peak_memory_mib": memory,
            "workers": training.worker.world,
            "precision": str(training.compute).removeprefix("torch."),
            "settings": training.settings.model_dump(mode="json"),
            FILES: sizes_of(staged),
        }
        (self._folder / run.artifact).publish_folder(staged, last=last)
        self._events.publish()
        (self._folder / SUMMARY).write_bytes(json.dumps(summary).encode())


class Events:
    """TensorBoard events of a run, below its folder.

    Args:
        folder: of the run, local or in a bucket.
    """

    def __init__(self, folder: Store) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._local = folder.staging() if not folder.is_local else Path(folder.path) / "tensorboard"
        self._writer = SummaryWriter(str(self._local))

    def add(self, step: int, **scalars: float) -> None:
        """Write scalars; ``train_loss`` is shown as ``train/loss``."""
        for name, value in scalars.items():
            self._writer.add_scalar(name.replace("_", "/", 1), value, step)

    def publish(self) -> None:
        """Close the files, and bring them to the bucket if the run is in one."""
        self._writer.close()
        if not self._folder.is_local:
            last = min(p.name for p in self._local.iterdir())
            (self._folder / "tensorboard").publish_folder(self._local, last=last)
