"""Estimate the entity prediction objective from some of the entities (Bengio and Senécal 2008).

A million entities make a million logits a sentence: more products and memory than all layers below. Here M
entities are drawn evenly, without replacement, for all sentences of a worker's batch. For a sentence with
the entity y, the m drawn ones that are not y stand for all N - 1 others, each for (N - 1) / m of them, so its
logit is raised by log((N - 1) / m): the correction by the logarithm of the chance to be drawn. The sum of
exponentials, and the mean of logits that smoothing takes, are then right in expectation; the loss is below
the full one by about half the variance of that sum over its square, which falls as 1 / M. With all entities
drawn it is the full loss.

Shape letters: B sentences, D dimensions, N entities, M drawn ones.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

Tensor = torch.Tensor


def drawn_entities(n_entities: int, samples: int) -> Tensor:
    """Return ``samples`` distinct entities, or all of fewer, int64 [M]; by the host's random numbers."""
    if samples >= n_entities:
        return torch.arange(n_entities)
    return torch.randperm(n_entities)[:samples]


def sampled_loss(
    head: Any, states_BD: Tensor, entities_B: Tensor, smoothing: float, drawn_M: Tensor
) -> Tensor:
    """Return the estimate of the summed smoothed cross-entropy, a scalar of at least float32.

    Args:
        head: linear layer, activation, linear layer: the last one has a row an entity.
        states_BD: what it reads.
        entities_B: the sentences' entities.
        smoothing: share of the label that is spread evenly.
        drawn_M: from :func:`drawn_entities`; at least two.
    """
    B, last = len(states_BD), head[2]
    N, drawn_M = last.out_features, drawn_M.to(states_BD.device)
    hidden_BD = head[1](head[0](states_BD))
    rows = torch.cat([entities_B.long(), drawn_M])
    weights, biases = F.embedding(rows, last.weight), last.bias[rows]  # one gradient of the matrix, not two
    wide = torch.promote_types(hidden_BD.dtype, torch.float32)
    own_B = (hidden_BD * weights[:B]).sum(-1).to(wide) + biases[:B]
    other_BM = F.linear(hidden_BD, weights[B:]).to(wide) + biases[B:]
    same_BM = drawn_M == entities_B[:, None]
    left_B = (~same_BM).sum(1)
    stands_for_B = (N - 1) / left_B
    raised_BM = (other_BM + stands_for_B.log()[:, None]).masked_fill(same_BM, -math.inf)
    log_sum_B = torch.cat([own_B[:, None], raised_BM], 1).logsumexp(1)
    mean_B = (own_B + stands_for_B * other_BM.masked_fill(same_BM, 0).sum(1)) / N
    return (log_sum_B - (1 - smoothing) * own_B - smoothing * mean_B).sum()
