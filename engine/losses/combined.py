"""Compute the loss of a batch: the objectives of a :class:`~engine.losses.settings.Schedule` together."""

from __future__ import annotations

import torch
from torch import nn

from engine.losses.clustering import Assignment, clustering_loss
from engine.losses.contrastive import Projection, contrastive_loss
from engine.losses.distillation import distillation_loss
from engine.losses.entity_prediction import smoothed_loss
from engine.losses.gather import gathered
from engine.losses.settings import Schedule
from engine.models.multimodal import EntityPredictionModel

Tensor = torch.Tensor


class Objectives(nn.Module):
    """All trained modules, and the loss of a batch."""

    def __init__(
        self, predictor: EntityPredictionModel, schedule: Schedule, rank: int = 0, world: int = 1
    ) -> None:
        super().__init__()
        self.predictor = predictor
        self.schedule, self.weights = schedule, schedule.weights()
        self.rank, self.world = rank, world
        dim = predictor.encoder.dim
        self.projection = Projection(dim) if schedule.contrastive else None
        self.assignment = Assignment(dim, schedule.clusters) if schedule.clustering else None

    def forward(
        self, context: tuple[Tensor, ...], entities_B: Tensor, teacher_BN: Tensor | None, total: int
    ) -> Tensor:
        """Return the loss, a scalar, such that its mean over workers is that of the whole batch.

        Args:
            context: this worker's rows, the arguments of :class:`MultimodalEncoder`.
            entities_B: the masked entities' ids.
            teacher_BN: the teacher's logits; None: no distillation.
            total: rows of the batch over all workers.
        """
        states_BD, logits_BN = self.predictor(context)
        share = self.world / total
        loss = self.weights.prediction * share * smoothed_loss(logits_BN, entities_B, self.schedule.smoothing)
        if teacher_BN is not None:
            loss = loss + self.weights.distillation * share * distillation_loss(teacher_BN, logits_BN)
        if self.schedule.paired:
            states_SD = gathered(states_BD.float(), total, self.rank, self.world)
            loss = loss + self._of_pairs(states_SD)
        return loss

    def _of_pairs(self, states_SD: Tensor) -> Tensor:
        loss = states_SD.new_zeros(())
        if self.projection is not None:
            compared = contrastive_loss(self.projection(states_SD), self.schedule.contrast)
            loss = loss + self.weights.contrastive * compared
        if self.assignment is not None:
            clustered = clustering_loss(self.assignment(states_SD), self.schedule.contrast)
            loss = loss + self.weights.clustering * clustered
        return loss
