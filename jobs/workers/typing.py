"""Open and end a training of the typing model in a worker."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import torch

from engine.errors import UserError
from engine.models.fingerprint import check_unchanged
from engine.storage.store import Store
from engine.training.settings import TypingSettings
from engine.training.trainer import Worker
from engine.training.typing import TypingTraining
from engine.typing.labels_file import LABELS
from engine.typing.mentions import TypedMention, read_mentions
from engine.typing.model import TypingModel
from engine.typing.offset import fit_offset
from engine.typing.teacher import read_taught
from jobs.workers.training_run import Run

JOB = "train_typing"


@dataclass(frozen=True)
class TypingRun(Run[TypingTraining]):
    """A run that trains the typing model."""

    job: ClassVar[str] = JOB
    artifact: ClassVar[str] = "model"
    unit: ClassVar[str] = "mentions"

    data: str
    """File of mentions."""
    digest: str
    """Its sha256."""
    examples: int | None
    """Mentions of each type that are drawn from the file; None: all that are in it."""
    model: str
    """A typing model to go on from, or an encoder to begin with."""
    typed: bool
    """The model is a typing model."""
    fingerprint: str
    labels: tuple[str, ...]
    words: str
    """Words of labels, as JSON."""
    teacher: str | None = None
    """The model that labelled what is trained on beside the file, for self-training."""
    taught: tuple[str, ...] = ()
    """Addresses of the files with what it labelled; their names stand for their content."""

    def open(self, worker: Worker, checkpoint: Path | None) -> TypingTraining:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, TypingSettings)
        check_unchanged(self.model, self.fingerprint)
        mentions, words = self.mentions(), json.loads(self.words)
        if self.typed:
            model = TypingModel.load(self.model)
            model.exchange_labels(self.labels, words, self.settings.max_tokens)
        else:
            limit, seed = self.settings.max_tokens, self.settings.seed
            model = TypingModel.begin(self.model, self.labels, words, limit, seed)
            model.to(worker.device)
            if checkpoint is None:
                fit_offset(model, mentions)
        torch.manual_seed(self.settings.seed)
        return TypingTraining(model, mentions, self.settings, worker, checkpoint)

    def mentions(self) -> list[TypedMention]:
        """Read the mentions that are trained on: those of the file, then those that a teacher labelled.

        Raises:
            UserError: the file is another one than when the run was planned.
        """
        from engine.typing.fewshot import draw_examples

        file = Store.open(self.data)
        if file.sha256() != self.digest:
            raise UserError(
                f"{self.data}: not the file that this run began with; it was changed meanwhile, or differs "
                "between the machines: run the command again"
            )
        found = read_mentions(file)
        if self.examples is not None:
            found = draw_examples(found, self.examples, self.settings.seed)
        taught = (read_taught(Store.open(one), self.labels) for one in self.taught)
        return [*found, *chain.from_iterable(taught)]

    def write(self, training: TypingTraining, folder: Path) -> str:
        """Write the trained model; every worker holds it whole."""
        return training.model.save(folder) if training.worker.is_first else LABELS

    def summary(self, training: TypingTraining) -> dict[str, Any]:
        """Return what the run was made of."""
        return {
            "model": self.model,
            "model_fingerprint": self.fingerprint,
            "data": self.data,
            "examples": self.examples,
            "teacher": self.teacher,
            "mentions": len(training.data),
            "labels": len(self.labels),
        }
