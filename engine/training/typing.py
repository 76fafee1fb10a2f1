"""Train the typing model: what differs from other trainings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from engine.errors import UserError
from engine.models.families import family_of
from engine.models.split import all_layers
from engine.training.checkpoint import CheckpointFormat, ReplicatedCheckpoint
from engine.training.layout import EngineLayout
from engine.training.lm import without_dropout
from engine.training.optimizer import parameter_groups
from engine.training.order import Rows, epoch_batches
from engine.training.settings import TypingSettings
from engine.training.trainer import Trainer, Worker
from engine.typing.labels import finest
from engine.typing.mentions import TypedMention
from engine.typing.model import TypingModel
from engine.typing.network import Questions, TypingNetwork
from engine.typing.targets import Labelled, QuestionMaker

Tensor = torch.Tensor


class TypingTraining(Trainer):
    """One worker's part of a training run.

    Args:
        model: trained in place, with the labels that are to be learnt.
        mentions: all that are trained on (every worker reads the same); those without labels are left out.
        settings: equal on all workers.
        worker: this process.
        checkpoint: folder to go on from.

    Raises:
        UserError: no mention has a label, or a label is not the model's.
    """

    def __init__(
        self,
        model: TypingModel,
        mentions: Sequence[TypedMention],
        settings: TypingSettings,
        worker: Worker | None = None,
        checkpoint: Path | None = None,
    ) -> None:
        worker = worker or Worker()
        self.model, self.typing = model, settings
        self.data = labelled(model, mentions)
        self._lengths = np.array([sum(map(len, one.parts)) for one in self.data], np.int64)
        self._questions = QuestionMaker(
            model.inputs,
            int(model.tokenizer.mask_token_id),
            len(model.network.tokens_VD),
            len(model.labels),
            settings.label_weight,
            settings.mlm,
            settings.next_word,
            settings.seed,
        )
        network = model.network
        choose_layers(network, settings.layers)
        _set_dropout(network, settings.dropout)
        # Torch's fused attention goes back through short sentences at a third of the plain one's speed.
        network.mlm.set_attn_implementation("eager")
        network.train()
        super().__init__(
            network, settings, _groups(network, settings), worker, EngineLayout(), True, checkpoint
        )

    @property
    def steps_per_epoch(self) -> int:
        """Global batches of an epoch."""
        return -(-len(self.data) // self.settings.batch_size)

    def batches(self, epoch: int) -> list[Rows]:
        """Return batches of mentions of about equal length."""
        return epoch_batches(self._lengths, self.settings.batch_size, self.settings.seed, epoch)

    def loss_of(self, own: Rows, total: int) -> Tensor:
        """Return the loss of some mentions, scaled to the global batch."""
        if not len(own):
            return self.no_loss()
        rows = own.tolist()
        made = self._questions.questions([self.data[row] for row in rows], rows, self.step)
        loss: Tensor = self.engine(_on(made, self.worker.device), self.typing.objective_weight)
        return loss * self.scale(total)

    def checkpoint_format(self) -> CheckpointFormat:
        """Return one file: all workers hold the same."""
        return ReplicatedCheckpoint({"network": self.module}, self.worker.device)


def labelled(model: TypingModel, mentions: Sequence[TypedMention]) -> list[Labelled]:
    """Return the inputs and the labels' numbers of all mentions that have labels.

    Raises:
        UserError: none has, or a label is not the model's.
    """
    place = {label: i for i, label in enumerate(model.labels)}
    kept = [one for one in mentions if one.labels or one.added]
    if not kept:
        raise UserError("--data: no mention has a label to learn")
    for one in kept:
        for strange in (label for label in (*one.labels, *one.added) if label not in place):
            raise UserError(
                f"--data: mention {one.id} has the label {strange!r}, which is not among the "
                f"{len(place)} types; add it to the file of --labels, or leave that option out"
            )
    parts = model.inputs.tokens([one.mention for one in kept])
    found = []
    for one, own in zip(kept, parts, strict=True):
        # Where a single type is predicted, its parents must not come before it.
        learnt = finest(one.labels) if model.about.rule == "single" else one.labels
        numbers = (
            np.array([place[label] for label in some], np.int64)
            for some in (learnt, one.added, one.uncertain)
        )
        found.append(Labelled(own, *numbers))
    return found


def choose_layers(network: TypingNetwork, last: int | None) -> None:
    """Let all weights learn, or of the encoder its last layers alone, the head's transform and the pooling.

    Raises:
        UserError: the encoder has fewer layers.
    """
    network.requires_grad_(True)
    if last is None:
        return
    encoder = network.mlm.base_model
    family = family_of(encoder.config.model_type, "--layers")
    layers = all_layers(encoder, family)
    if last > len(layers):
        raise UserError(f"--layers {last}: the encoder has {len(layers)}")
    encoder.requires_grad_(False)
    network.tokens_VD.requires_grad_(False)  # the embeddings themselves, where they are tied
    for layer in layers[-last:]:
        layer.requires_grad_(True)
    if family.final_norm:
        encoder.get_submodule(family.final_norm).requires_grad_(True)


def _set_dropout(network: TypingNetwork, share: float) -> None:
    """Let outputs drop a share of their values in training, and attention weights none."""
    without_dropout(network)
    for name, module in network.named_modules():
        if isinstance(module, nn.Dropout) and "attention.self" not in name:
            module.p = share


def _groups(network: TypingNetwork, settings: TypingSettings) -> list[dict[str, Any]]:
    """Return the optimiser's groups: what begins anew learns at a rate of its own."""
    new = parameter_groups(network.pooling, settings.weight_decay)
    for group in new:
        group["share"] = settings.new_rate
    old = parameter_groups(network.mlm, settings.weight_decay)
    return [group for group in (*old, *new) if group["params"]]


def _on(made: Questions, device: torch.device) -> Questions:
    """Move questions to a device."""
    moved = [
        tuple(t.to(device) for t in value) if isinstance(value, tuple) else value.to(device) for value in made
    ]
    return Questions(*cast(Any, moved))
