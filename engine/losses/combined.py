"""Compute the loss of a batch: all objectives of a :class:`~engine.losses.settings.Schedule`, or one of them.

Distillation follows equation 15. The authors' program differs: it computes the divergence from probabilities
where it means their logarithms, and lets gradients move its teacher, besides the momentum. Smoothing spreads
its share over all entities, as RetExpan's program does; MESED's leaves out the labelled one.
"""

from __future__ import annotations

import torch
from torch import nn

from engine.losses.clustering import Assignment, clustering_loss
from engine.losses.contrastive import Projection, contrastive_loss
from engine.losses.distillation import distillation_loss
from engine.losses.entity_prediction import smoothed_loss
from engine.losses.gather import gathered
from engine.losses.settings import Objective, Schedule
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
        self,
        context: tuple[Tensor, ...],
        entities_B: Tensor,
        teacher_BN: Tensor | None,
        owner_S: Tensor,
        only: Objective | None = None,
    ) -> Tensor:
        """Return the loss, a scalar, such that its mean over workers is that of the whole batch.

        Args:
            context: this worker's rows, the arguments of :class:`MultimodalEncoder`; there may be none.
            entities_B: the masked entities' ids.
            teacher_BN: the teacher's logits; None: no distillation.
            owner_S: the worker of each row of the whole batch.
            only: the objective of a separate pass; None: the weighted sum of all.
        """
        loss = context[0].new_zeros((), dtype=torch.float32)
        if not len(entities_B):
            states_BD = context[0].new_zeros(0, self.predictor.encoder.dim)
        elif only is None or only == "prediction":
            states_BD, logits_BN = self.predictor(context)
            predicted = self._of_prediction(logits_BN, entities_B, teacher_BN)
            loss = predicted * (self.world / len(owner_S))
        else:
            states_BD = self.predictor.encoder(*context)
        if self.schedule.paired and only != "prediction":
            states_SD = gathered(states_BD.float(), owner_S, self.rank, self.world)
            loss = loss + self._of_pairs(states_SD, only)
        return loss

    def unused(self, only: Objective | None) -> list[nn.Parameter]:
        """Return the parameters of the heads that a pass of one objective leaves alone."""
        heads = {
            "prediction": self.predictor.head,
            "contrastive": self.projection,
            "clustering": self.assignment,
        }
        left = [head for name, head in heads.items() if only not in (None, name) and head is not None]
        return [parameter for head in left for parameter in head.parameters()]

    def _of_prediction(self, logits_BN: Tensor, entities_B: Tensor, teacher_BN: Tensor | None) -> Tensor:
        """Return w ((1 - d) CE + d KL), summed over rows; without a teacher, w CE.

        Where prediction is off, distillation beside the sum of the others is d KL.
        """
        w, d = self.weights.prediction, self.weights.distillation
        if teacher_BN is None:
            return w * smoothed_loss(logits_BN, entities_B, self.schedule.smoothing)
        told = d * (w or 1.0) * distillation_loss(teacher_BN, logits_BN)
        return told + w * (1 - d) * smoothed_loss(logits_BN, entities_B, self.schedule.smoothing)

    def _of_pairs(self, states_SD: Tensor, only: Objective | None) -> Tensor:
        loss = states_SD.new_zeros(())
        if self.projection is not None and only in (None, "contrastive"):
            compared = contrastive_loss(self.projection(states_SD), self.schedule.contrast)
            loss = loss + self.weights.contrastive * compared
        if self.assignment is not None and only in (None, "clustering"):
            clustered = clustering_loss(self.assignment(states_SD), self.schedule.contrast)
            loss = loss + self.weights.clustering * clustered
        return loss
