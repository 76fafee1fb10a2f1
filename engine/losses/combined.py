"""Combine the objectives of the multi-modal encoder by their weights (MESED, section "Methods").

Masked entity prediction has the weight 1 alone, 0.5 with contrast, and 0.8 with clustering without
contrast. Contrast weighs 0.5, clustering 0.2, momentum distillation 0.02.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from engine.losses.clustering import Assignment, clustering_loss
from engine.losses.contrastive import ContrastSettings, Projection, contrastive_loss
from engine.losses.distillation import distillation_loss
from engine.losses.entity_prediction import smoothed_loss
from engine.losses.gather import gathered
from engine.models.multimodal import EntityPredictionModel

Tensor = torch.Tensor


class Weights(NamedTuple):
    """The weight of each objective; 0: it is not trained."""

    prediction: float
    contrastive: float
    clustering: float
    distillation: float


class Schedule(BaseModel):
    """The objectives of a run; each can be switched off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prediction: bool = Field(default=True, description="Objective: masked entity prediction.")
    contrastive: bool = Field(default=True, description="Objective: contrast with hard negatives.")
    clustering: bool = Field(default=True, description="Objective: clustering.")
    distillation: bool = Field(default=True, description="Objective: momentum distillation.")
    smoothing: float = Field(default=0.075, ge=0, lt=1, description="Label smoothing.")
    clusters: int = Field(default=16, ge=2, description="Classes of the clustering objective.")
    """The paper takes those of its queries, and one more."""
    contrast: ContrastSettings = ContrastSettings()

    @model_validator(mode="after")
    def _has_one(self) -> Schedule:
        if not (self.prediction or self.contrastive or self.clustering):
            raise ValueError("nothing would be learnt: leave prediction, contrast or clustering on")
        return self

    @property
    def paired(self) -> bool:
        """True if an objective compares pairs of contexts."""
        return self.contrastive or self.clustering

    def weights(self) -> Weights:
        """Return the weights of the objectives that are on."""
        alone = 0.5 if self.contrastive else 0.8 if self.clustering else 1.0
        return Weights(
            alone * self.prediction,
            0.5 * self.contrastive,
            0.2 * self.clustering,
            0.02 * self.distillation,
        )


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
