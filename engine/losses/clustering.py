"""Compute the clustering objective: contrast columns of class probabilities (MESED, equations 13, 14).

A class is the column of probabilities with which the samples of a batch belong to it. The columns of the
first and of the second samples of all pairs are the same class seen twice: a positive pair of columns, in
the contrastive form. Alone this is at its least when all samples are of one class, so the entropy of the
mean assignment is taken off. The entropy and the head below are those of the authors' program; the paper
prints neither.

Shape letters: S = 2N samples, D dimensions, M classes.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from engine.losses.contrastive import contrastive_loss
from engine.losses.settings import ContrastSettings

Tensor = torch.Tensor


class Assignment(nn.Sequential):
    """p_clu: BatchNorm -> ReLU -> Linear(D, D) -> BatchNorm -> ReLU -> Linear(D, M) -> softmax, [S, M]."""

    def __init__(self, dim: int, clusters: int) -> None:
        super().__init__(
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, dim),
            nn.BatchNorm1d(dim),
            nn.ReLU(),
            nn.Linear(dim, clusters),
            nn.Softmax(dim=1),
        )


def clustering_loss(classes_SM: Tensor, settings: ContrastSettings) -> Tensor:
    """Return the contrastive loss over columns less the entropies of both mean assignments, a scalar.

    Columns are scaled to length 1 first, unlike equation 13 and the authors' program: the plain product
    of probabilities grows with the batch, while the bound of equation 10 is made for products up to 1.

    Args:
        classes_SM: probabilities of classes; rows 2i and 2i + 1 are a pair.
        settings: of equations 9 to 11.
    """
    first_MN, second_MN = classes_SM[::2].T, classes_SM[1::2].T
    columns = torch.stack([F.normalize(first_MN, dim=1), F.normalize(second_MN, dim=1)], dim=1)
    entropy = _entropy(first_MN.mean(dim=1)) + _entropy(second_MN.mean(dim=1))
    return contrastive_loss(columns.flatten(0, 1), settings) - entropy


def _entropy(probabilities_M: Tensor) -> Tensor:
    return -(probabilities_M * probabilities_M.clamp_min(1e-12).log()).sum()
