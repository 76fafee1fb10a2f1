"""What one worker of an encoder training does, whoever started it on Ray Train.

The first worker also follows the run: TensorBoard events, progress, and in the end the encoder.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.corpus.inputs.format import Inputs
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.cache import FrozenCache
from engine.training.multimodal import MultimodalSettings, MultimodalTraining
from engine.training.multimodal_data import open_contexts
from engine.training.pairs import ExpandedLists
from engine.training.text import EncoderSettings, EncoderTraining
from engine.training.trainer import StepReport, StepSettings, Training
from jobs.workers.trainer import Events, agree

JOB = "train_encoder"
MULTIMODAL_JOB = "train_multimodal"


@dataclass(frozen=True)
class Run:
    """What every worker is told: of a run that trains the text encoder."""

    job: ClassVar[str] = JOB

    workspace: str
    inputs: Inputs
    states: list[Store]
    model: str
    name: str
    n_entities: int
    settings: StepSettings
    gpu: bool
    cores: float
    """Of a worker."""
    checkpoint_seconds: float

    def open(self, rank: int, world: int, device: torch.device) -> Training:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, EncoderSettings)
        encoder = TextEncoder.load(self.model).to(device)
        data = FrozenCache(self.inputs, self.states).open()
        return EncoderTraining(encoder, data, self.n_entities, self.settings, rank, world, device)

    def made_of(self) -> dict[str, str]:
        """Return what the summary says of the run's input."""
        return {"model": self.model, "inputs": self.inputs.key}


@dataclass(frozen=True)
class MultimodalRun(Run):
    """The same of a run that trains the multi-modal encoder."""

    job: ClassVar[str] = MULTIMODAL_JOB

    features: str
    """Key of the image features."""
    lists: ExpandedLists

    def open(self, rank: int, world: int, device: torch.device) -> Training:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, MultimodalSettings)
        text = TextEncoder.load(self.model)
        workspace = Workspace.open(self.workspace)
        data = open_contexts(
            workspace, FrozenCache(self.inputs, self.states), self.features, text, self.model
        )
        return MultimodalTraining(text.to(device), data, self.lists, self.settings, rank, world, device)

    def made_of(self) -> dict[str, str]:
        """Return what the summary says of the run's input."""
        return super().made_of() | {"features": self.features}


def work(config: dict[str, Any]) -> None:
    """One worker: open or resume the training, take the steps, report, and write the encoder."""
    from ray import train
    from ray.train.torch import get_device

    run: Run = config["run"]
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device() if run.gpu else torch.device("cpu")
    torch.set_num_threads(max(1, int(run.cores)))
    training = run.open(rank, world, device)
    if checkpoint := train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            training.load(Path(folder))
    folder = Workspace.open(run.workspace).runs(run.job) / run.name
    follow = _Follow(run, folder, training, config["progress"]) if rank == 0 else None
    saved = time.monotonic()
    for step in training.run():
        if follow:
            follow(step)
        # Every worker must report together; the first one's clock decides.
        due = agree(time.monotonic() - saved > run.checkpoint_seconds, world, device)
        if due or step.step == training.total_steps:
            _report(step, training if rank == 0 else None)
            saved = time.monotonic()  # after the report, which may take longer than the time between
    if follow:
        follow.finish()


def _report(step: StepReport, training: Training | None) -> None:
    """Hand metrics to Ray Train, and from the first worker the checkpoint."""
    from ray import train

    metrics = {"step": step.step, "epoch": step.epoch, "loss": step.loss}
    if training is None:
        train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as folder:
        training.save(Path(folder))
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder))


class _Follow:
    """What the first worker does besides training: TensorBoard events, progress, the finished encoder."""

    def __init__(self, run: Run, folder: Store, training: Training, progress: Any) -> None:
        self._run, self._folder, self._training, self._progress = run, folder, training, progress
        self._events = Events(folder)
        self._started = self._shown = time.monotonic()
        self._sentences = 0
        self._resumed_at = training.step

    def __call__(self, step: StepReport) -> None:
        self._sentences += step.sentences * self._training.world
        self._events.add(step.step, train_loss=step.loss, train_learning_rate=step.learning_rate)
        now = time.monotonic()
        last = step.step == self._training.total_steps
        if now - self._shown < 0.5 and not last:
            return
        self._shown = now
        rate = self._sentences / (now - self._started)
        self._events.add(step.step, train_sentences_per_second=rate)
        note = f"epoch {step.epoch + 1} loss {step.loss:.3f} {rate:.0f} sentences/s"
        self._progress.set.remote(step.step, self._training.total_steps, note)

    def finish(self) -> None:
        """Publish the trained encoder, the loss curve and the events."""
        seconds = time.monotonic() - self._started
        training = self._training
        summary = {
            "run": self._folder.name,
            **self._run.made_of(),
            "steps": training.step,
            "resumed_at": self._resumed_at,
            "sentences": training.contexts,
            "epochs": training.settings.epochs,
            "loss": training.losses[-1],
            "losses": training.losses,
            "sentences_per_second": round(self._sentences / seconds, 1) if seconds else None,
            "seconds": round(seconds, 1),
            "settings": json.loads(training.settings.model_dump_json()),
        }
        encoder = self._folder / "encoder"
        staged = encoder.staging()
        encoder.publish_folder(staged, last=training.save_encoder(staged))
        self._events.publish()
        (self._folder / "summary.json").write_bytes(json.dumps(summary).encode())
