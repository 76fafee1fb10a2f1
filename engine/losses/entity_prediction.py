"""Compute the entity prediction objective: which entity was masked? (RetExpan, equations 3 and 4)

Cross-entropy over all candidate entities with label smoothing. Equation 4 writes smoothing as a sum of
per-entity binary terms; the authors' program uses smoothed cross-entropy, and so do we.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from engine.losses.sampled_softmax import drawn_entities, sampled_loss
from engine.models.text import MaskPositionLayer

Tensor = torch.Tensor

BLOCK_ELEMENTS = 1 << 18
"""Logits whose loss a processor computes at once: a megabyte, in a cache of two."""


class EntityHead(nn.Sequential):
    """The head f = Linear(D, D) -> GELU -> Linear(D, N): logits [B, N] over entities of states [B, D]."""

    def __init__(self, dim: int, n_entities: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, n_entities))


class EntityPrediction(nn.Module):
    """The trained modules, the last encoder layer and the head, and their loss.

    Args:
        last: the encoder's last layer.
        n_entities: size of the vocabulary, N.
        smoothing: share of the label that is spread evenly.
        compute: type of the matrix products.
        dropout: share that the last layer drops of its attention weights and outputs. The head has none, as
            the authors' has none.
        samples: entities that the loss is estimated from (:mod:`engine.losses.sampled_softmax`); None: all.
    """

    def __init__(
        self,
        last: MaskPositionLayer,
        n_entities: int,
        smoothing: float,
        compute: torch.dtype = torch.float32,
        dropout: float = 0.0,
        samples: int | None = None,
    ) -> None:
        super().__init__()
        self.samples, self.n_entities = samples, n_entities
        self.dropout = dropout
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
            states_BD = self.last(states_BLD, lengths_B, mask_B, self.dropout)
            if self.samples is not None:
                drawn_M = drawn_entities(self.n_entities, self.samples)
                return sampled_loss(self.head, states_BD, entities_B, self.smoothing, drawn_M)
            logits_BN = self.head(states_BD)
        return smoothed_loss(logits_BN, entities_B, self.smoothing)


def smoothed_loss(logits_BN: Tensor, entities_B: Tensor, smoothing: float) -> Tensor:
    """Return the summed cross-entropy with label smoothing, a scalar of at least float32."""
    loss: Tensor = _SmoothedLoss.apply(logits_BN, entities_B.long(), smoothing)
    return loss


class _SmoothedLoss(torch.autograd.Function):
    """Cross-entropy with label smoothing, whose gradient is made along with it in one buffer.

    With p = softmax(z) of one sentence's N logits z, whose entity is y, and smoothing s:

        loss = log sum_n exp(z_n) - (1-s) z_y - s/N sum_n z_n        dloss/dz_n = p_n - (1-s) [n = y] - s/N

    and log sum_n exp(z_n) = max z - log max p, so that the exponentials are computed once. A processor
    goes through the logits in blocks that stay in its cache; torch's own cross-entropy goes through the
    whole, which is nearly as large as the head's weights, in every one of its passes.
    """

    @staticmethod
    def forward(ctx: Any, logits_BN: Tensor, entities_B: Tensor, smoothing: float) -> Tensor:
        wide = torch.promote_types(logits_BN.dtype, torch.float32)
        uniform, hit = smoothing / logits_BN.shape[1], 1 - smoothing
        loss = torch.zeros((), dtype=wide, device=logits_BN.device)
        dlogits_BN = torch.empty_like(logits_BN)
        rows = max(1, BLOCK_ELEMENTS // logits_BN.shape[1] if logits_BN.is_cpu else len(logits_BN))
        for at in range(0, len(logits_BN), rows):
            z_BN, own_B1 = logits_BN[at : at + rows].to(wide), entities_B[at : at + rows, None]
            p_BN = z_BN.softmax(dim=-1)
            log_sum_B = z_BN.amax(dim=-1) - p_BN.amax(dim=-1).log()
            loss += log_sum_B.sum() - hit * z_BN.gather(1, own_B1).sum() - uniform * z_BN.sum()
            p_BN.sub_(uniform).scatter_add_(1, own_B1, p_BN.new_full(own_B1.shape, -hit))
            dlogits_BN[at : at + rows] = p_BN
        ctx.save_for_backward(dlogits_BN)
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, None, None]:
        (dlogits_BN,) = ctx.saved_tensors
        # In place, as logits of many entities are large; torch refuses to go back through it once more.
        return dlogits_BN.mul_(dloss), None, None
