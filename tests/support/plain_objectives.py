"""The objectives of MESED as its equations say them, a sample at a time, with gradients."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

Tensor = torch.Tensor

T, TAU, BETA = 0.5, 0.05, 1.0


def contrast(vectors_SE: Tensor) -> Tensor:
    """Return the mean of equation 9 over unit vectors, of which 2i and 2i + 1 are a pair."""
    losses = []
    for i, own in enumerate(vectors_SE):
        j = i + 1 if i % 2 == 0 else i - 1
        positive = (own @ vectors_SE[j] / T).exp()
        others = torch.stack([own @ v / T for k, v in enumerate(vectors_SE) if k not in (i, j)])
        hard = ((1 + BETA) * others).exp().sum() / (BETA * others).exp().sum()
        negative = len(others) * (hard - TAU * positive) / (1 - TAU)
        losses.append(-(positive / (positive + negative.clamp(min=math.exp(-1 / T)))).log())
    return torch.stack(losses).mean()


def clustering(classes_SM: Tensor) -> Tensor:
    """Return the contrast of unit columns of both sides less the entropies of the mean assignments."""
    sides = classes_SM[0::2], classes_SM[1::2]
    columns = [F.normalize(side[:, m], dim=0) for m in range(classes_SM.shape[1]) for side in sides]
    entropy = sum((-(p * p.log()).sum() for p in (side.mean(dim=0) for side in sides)), torch.zeros(()))
    return contrast(torch.stack(columns)) - entropy


def distilled(told_BN: Tensor, logits_BN: Tensor) -> Tensor:
    """Return the mean divergence of predictions from what the teacher told (equation 15)."""
    told, own = told_BN.softmax(dim=1), logits_BN.softmax(dim=1)
    return (told * (told / own).log()).sum(dim=1).mean()
