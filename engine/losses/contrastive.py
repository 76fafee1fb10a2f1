"""Compute the contrastive objective with hard negatives (MESED, equations 8 to 12).

Vectors come in pairs, 2i and 2i + 1, of an entity and one of its mined positives. Every other
vector of the batch is a negative; the more alike it is, the more it weighs (beta), and what is expected
of unknown positives among the negatives is taken off (tau).

The projection normalises over all 2N vectors together; the authors' program passes the first and the second
members of the pairs one after the other, and so normalises each side by itself.

Shape letters: S = 2N samples, D dimensions, E dimensions of the projection.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

from engine.losses.settings import ContrastSettings

Tensor = torch.Tensor

HIDDEN, OUT = 256, 128


class Projection(nn.Sequential):
    """p_con = Linear(D, 256, no bias) -> BatchNorm -> ReLU -> Linear(256, 128) -> L2: [S, 128] of [S, D]."""

    def __init__(self, dim: int) -> None:
        super().__init__(
            nn.Linear(dim, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, OUT)
        )

    def forward(self, states_SD: Tensor) -> Tensor:
        """Return unit vectors."""
        return F.normalize(super().forward(states_SD), dim=1)


def pair_losses(vectors_SE: Tensor, settings: ContrastSettings) -> Tensor:
    """Return the loss of each vector, [S] (equations 9 to 11).

    The bound e^(-1/t) of equation 10 is the least that a negative can be, so it holds for products
    between -1 and 1: the vectors must be unit ones. (The authors' program bounds the sum of all S - 2
    negatives by (S - 2) e^(-1/t); equation 10, which is computed here, by e^(-1/t).)

    Args:
        vectors_SE: unit vectors; 2i and 2i + 1 are a pair.
        settings: of the equations.
    """
    t, prior, beta = settings.temperature, settings.prior, settings.concentration
    S = len(vectors_SE)
    place_S = torch.arange(S, device=vectors_SE.device)
    pair_S = place_S ^ 1
    similar_SS = vectors_SE @ vectors_SE.T / t
    positive_S = similar_SS[place_S, pair_S].exp()
    own_SS = (place_S[:, None] == place_S) | (place_S[:, None] == pair_S)
    others_SS = torch.where(own_SS, 0, similar_SS.exp())
    weight_SS = torch.where(own_SS, 0, (beta * similar_SS).exp())
    # Equation 11; with one pair there are no negatives, and both sums are 0.
    weighted_S = (weight_SS * others_SS).sum(dim=1) / weight_SS.sum(dim=1).clamp_min(1e-12)
    debiased_S = (S - 2) * (weighted_S - prior * positive_S) / (1 - prior)
    negative_S = debiased_S.clamp_min(math.exp(-1 / t))
    return (positive_S + negative_S).log() - positive_S.log()


def contrastive_loss(vectors_SE: Tensor, settings: ContrastSettings) -> Tensor:
    """Return the mean of :func:`pair_losses`.

    Equation 12 sums; the mean keeps the weight of the objective the same for any size of batch.
    """
    return pair_losses(vectors_SE, settings).mean()
