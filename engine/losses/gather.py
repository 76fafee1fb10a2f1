"""Gather the states of a whole batch on every worker, so that each sees all workers' negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed

Tensor = torch.Tensor


def gathered(own_bD: Tensor, owner_S: Tensor, rank: int, world: int) -> Tensor:
    """Return the states of all workers, [S, D], in the order of the batch that was cut.

    Gradients flow to the own rows, times the number of workers: every worker computes the same loss of all
    rows, and the mean over workers then is the gradient of that loss.

    Args:
        own_bD: states of this worker's rows, in their order in the batch; there may be none.
        owner_S: the worker of each row of the batch, int64, the same on all workers.
        rank: of this worker.
        world: number of workers.
    """
    if world == 1:
        return own_bD
    found: Tensor = _Gather.apply(own_bD, owner_S.to(own_bD.device), rank, world)
    return found


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, own_bD: Tensor, owner_S: Tensor, rank: int, world: int) -> Tensor:
        context.own_S, context.world = owner_S == rank, world
        counts = torch.bincount(owner_S, minlength=world).tolist()
        padded = own_bD.new_zeros(max(counts), own_bD.shape[1])
        padded[: len(own_bD)] = own_bD
        parts = [torch.empty_like(padded) for _ in range(world)]
        distributed.all_gather(parts, padded)
        found_SD = own_bD.new_empty(len(owner_S), own_bD.shape[1])
        for worker, (part, count) in enumerate(zip(parts, counts, strict=True)):
            found_SD[owner_S == worker] = part[:count]
        return found_SD

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return gradients[0][context.own_S] * context.world, None, None, None
