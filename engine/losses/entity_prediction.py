"""The entity prediction objective (RetExpan, equations 3 and 4): which entity was masked?

Cross-entropy over all candidate entities with label smoothing. Equation 4 writes smoothing as a sum of
per-entity binary terms; the authors' program uses smoothed cross-entropy, and so do we.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from engine.models.text import LastLayerAtMask

Tensor = torch.Tensor


class EntityHead(nn.Sequential):
    """f = Linear(D, D) -> GELU -> Linear(D, number of entities): logits [B, N] of states [B, D]."""

    def __init__(self, dim: int, n_entities: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, n_entities))


class EntityPrediction(nn.Module):
    """What learns: the last encoder layer and the head."""

    def __init__(
        self,
        last: LastLayerAtMask,
        n_entities: int,
        smoothing: float,
        compute: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.compute = compute
        self.last = last
        self.last.requires_grad_(True)
        self.head = EntityHead(last.dim, n_entities)
        self.smoothing = smoothing

    def forward(self, states_BLD: Tensor, lengths_B: Tensor, mask_B: Tensor, entities_B: Tensor) -> Tensor:
        """Return the summed loss of the sentences, a scalar.

        Args:
            states_BLD: frozen states below the last layer, in ``compute``.
            lengths_B: tokens a sentence.
            mask_B: position of the mask token.
            entities_B: the masked entity's id.
        """
        narrow = self.compute != torch.float32
        # Weights, normalisation and the loss stay float32; only the products are narrow.
        with torch.autocast(states_BLD.device.type, self.compute, enabled=narrow):
            logits_BN = self.head(self.last(states_BLD, lengths_B, mask_B))
        return smoothed_loss(logits_BN, entities_B, self.smoothing)


def smoothed_loss(logits_BN: Tensor, entities_B: Tensor, smoothing: float) -> Tensor:
    """Return the summed cross-entropy with label smoothing."""
    return F.cross_entropy(logits_BN.float(), entities_B.long(), label_smoothing=smoothing, reduction="sum")
