"""Gather the states of a whole batch on every worker, so that each sees all workers' negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

Tensor = torch.Tensor


def gathered(own_bD: Tensor, total: int, rank: int, world: int) -> Tensor:
    """Return the states of all workers, [total, D], in the order of the batch that was cut.

    Worker r holds the rows r, r + world, … (:func:`engine.training.order.rank_slice`). Gradients flow to
    the own rows, times the number of workers: every worker computes the same loss of all rows, and the
    mean over workers then is the gradient of that loss.
    """
    if world == 1:
        return own_bD
    found: Tensor = _Gather.apply(own_bD, total, rank, world)
    return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own_bD: Tensor, total: int, rank: int, world: int) -> Tensor:
        context.rank, context.world = rank, world
        most = -(-total // world)
        padded = own_bD.new_zeros(most, own_bD.shape[1])
        padded[: len(own_bD)] = own_bD
        parts = [torch.empty_like(padded) for _ in range(world)]
        distributed.all_gather(parts, padded)
        return torch.stack(parts, dim=1).flatten(0, 1)[:total]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0][context.rank :: context.world] * context.world, None, None, None
