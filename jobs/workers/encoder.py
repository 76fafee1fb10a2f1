"""Open and end trainings of the text encoder and of the multi-modal encoder in a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from engine.corpus.inputs.format import Inputs
from engine.corpus.inputs.masking import load_tokenizer
from engine.models.fingerprint import check_unchanged
from engine.models.text import TextEncoder
from engine.models.vision import load_tower
from engine.storage.store import Store, local_folder, machine_cache
from engine.storage.workspace import Workspace
from engine.training.cache import CachedStates, FrozenCache, mapped_tokens
from engine.training.contrast import ContrastData, ContrastTraining
from engine.training.contrast_lists import open_lists
from engine.training.multimodal import MultimodalTraining
from engine.training.multimodal_data import open_contexts
from engine.training.pairs import NeighborLists
from engine.training.settings import ContrastiveSettings, EncoderSettings, MultimodalSettings
from engine.training.state_shards import copied_states, open_share
from engine.training.text import EncoderTraining
from engine.training.text_head import read_head
from engine.training.trainer import Worker
from engine.vocabulary import Vocabulary
from jobs.workers.disk_use import check_copies, check_room
from jobs.workers.training_run import Run

JOB = "train_encoder"
MULTIMODAL_JOB = "train_multimodal"
CONTRAST_JOB = "train_contrast"

Training = EncoderTraining | MultimodalTraining


class WarmStart(NamedTuple):
    """An earlier run of the same kind that a training begins with: its name, and its encoder's folder."""

    run: str
    folder: str
    fingerprint: str
    """Fingerprint of what was trained."""

    def encoder(self) -> str:
        """Return the local folder of the encoder.

        Raises:
            UserError: it is another one here.
        """
        check_unchanged(self.folder, self.fingerprint, "--warm-start")
        return local_folder(self.folder)


@dataclass(frozen=True)
class EncoderRun(Run[Training]):
    """A run that trains the text encoder."""

    job: ClassVar[str] = JOB
    artifact: ClassVar[str] = "encoder"
    unit: ClassVar[str] = "sentences"

    inputs: Inputs
    states: list[Store]
    model: str
    fingerprint: str
    """Fingerprint of the model (:func:`engine.models.fingerprint.model_fingerprint`)."""
    n_entities: int
    lineage: str
    """What the corpus has in common with those that it grew from."""
    warm_start: WarmStart | None = field(default=None, kw_only=True)

    def begun(self) -> tuple[str, dict[str, torch.Tensor] | None]:
        """Return the encoder that the training begins with, and the weights of its head if it has one."""
        check_unchanged(self.model, self.fingerprint)
        if self.warm_start is None:
            return self.model, None
        folder = self.warm_start.encoder()
        return folder, read_head(Path(folder))

    def open_states(self, worker: Worker, with_states: bool = True) -> CachedStates:
        """Open a worker's states, which from a bucket are copied to its machine if there is room for them."""
        cache = FrozenCache(self.inputs, self.states)
        if with_states:
            check_copies(copied_states(cache, worker.rank, worker.world), worker.is_first)
        return open_share(cache, worker.rank, worker.world, with_states)

    def open(self, worker: Worker, checkpoint: Path | None) -> Training:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, EncoderSettings)
        name, head = self.begun()
        encoder = TextEncoder.load(name).to(worker.device)
        data = self.open_states(worker)
        return EncoderTraining(encoder, data, self.n_entities, self.settings, worker, checkpoint, head)

    def write(self, training: Training, folder: Path) -> str:
        """Write the trained encoder; every worker holds it whole."""
        return training.save_encoder(folder) if training.worker.is_first else ""

    def summary(self, training: Training) -> dict[str, Any]:
        """Return what the run was made of."""
        return {
            "model": self.model,
            "model_fingerprint": self.fingerprint,
            "inputs": self.inputs.key,
            "lineage": self.lineage,
            "warm_start": self.warm_start.run if self.warm_start else None,
            "sentences": training.contexts,
        }


@dataclass(frozen=True)
class MultimodalRun(EncoderRun):
    """A run that trains the multi-modal encoder."""

    job: ClassVar[str] = MULTIMODAL_JOB

    features: str
    """Key of the image features."""
    lists: NeighborLists

    def open(self, worker: Worker, checkpoint: Path | None) -> Training:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, MultimodalSettings)
        check_unchanged(self.model, self.fingerprint)
        text = TextEncoder.load(self.model)
        workspace = Workspace.open(self.workspace)
        modality = self.settings.modality
        states = self.open_states(worker, with_states=modality != "image")
        data = open_contexts(workspace, self.inputs, states, self.features, text, self.model)
        if modality != "text":
            check_room(
                data.features.bytes_to_hold(own := data.images_of_worker(worker.rank)), worker.is_first
            )
            data.features.hold(own)
        text.to(worker.device)
        tower = None
        if self.settings.architecture != "multiexpan":
            about = data.features.manifest
            tower = load_tower(about.model, about.settings.backbone)
        return MultimodalTraining(text, data, self.lists, self.settings, worker, checkpoint, tower)

    def summary(self, training: Training) -> dict[str, Any]:
        """Return what the run was made of."""
        return super().summary(training) | {"features": self.features}


@dataclass(frozen=True)
class ContrastRun(EncoderRun):
    """A run that trains the text encoder by mined lists, too."""

    job: ClassVar[str] = CONTRAST_JOB

    lists_key: str
    """Key of the lists."""

    def open(self, worker: Worker, checkpoint: Path | None) -> Training:
        """Open a worker's part of the training."""
        assert isinstance(self.settings, ContrastiveSettings)
        name, head = self.begun()
        workspace = Workspace.open(self.workspace)
        names = Vocabulary.read(workspace.entities.local_copy(machine_cache())).names
        lists = open_lists(workspace, self.lists_key).read(self.n_entities)
        states = self.open_states(worker)
        tokens = mapped_tokens(self.inputs) if self.settings.ultra_fine.seed_text else []
        data = ContrastData(states, tokens, lists, names)
        encoder, tokenizer = TextEncoder.load(name), load_tokenizer(name)
        return ContrastTraining(
            encoder, tokenizer, data, self.n_entities, self.settings, worker, checkpoint, head
        )

    def summary(self, training: Training) -> dict[str, Any]:
        """Return what the run was made of."""
        return super().summary(training) | {"contrast_lists": self.lists_key}
