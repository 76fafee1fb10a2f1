"""Reach the float32 weights and moments that a ZeRO stage 3 optimiser shares out, in memory or on a disk.

DeepSpeed's ``safe_get_…`` and ``safe_set_…`` do so, too, but where they lie on a disk they read (and write) a
whole group of parameters, gigabytes, for each parameter of it. Here a group stays in memory until another
one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

Tensor = torch.Tensor

MOMENTS = ("exp_avg", "exp_avg_sq")


class OptimizerShares:
    """This worker's shares of what the optimiser holds; of groups on a disk one is in memory at a time.

    Args:
        changed: write a group back when another one takes its place; else it is only looked at.
    """

    def __init__(self, changed: bool) -> None:
        self._changed = changed
        self._held: tuple[Any, int] | None = None

    def of(self, parameter: Any, moment: str | None = None) -> Tensor:
        """Return the share of a parameter's weights or of a moment: a view, until another is asked for."""
        optimizer = parameter._z3_optimizer
        group, start, length = optimizer.grad_position[optimizer.get_param_id(parameter)]
        if self._held != (optimizer, group):
            self.put_back()
            if on_disk(optimizer, group):
                optimizer._optimizer_states_and_gradient_swap_in(group)
                self._held = optimizer, group
        flat = optimizer.fp32_partitioned_groups_flat[group]
        whole: Tensor = flat if moment is None else optimizer.optimizer.state[flat][moment]
        return whole.detach().narrow(0, start, length)

    def whole(self, parameter: Any, moment: str | None = None) -> Tensor:
        """Return a parameter's weights or a moment, of all workers' shares; all of them call it."""
        found: Tensor = parameter._z3_optimizer._fp32_state_allgather(parameter, self.of(parameter, moment))
        return found

    def put_back(self) -> None:
        """Let go of the group that is in memory, if it belongs on a disk."""
        if self._held is None:
            return
        (optimizer, group), self._held = self._held, None
        if self._changed:
            optimizer._optimizer_states_and_gradient_swap_out(group)
        else:
            optimizer._release_swap_buffers(group)


@contextmanager
def optimizer_shares(changed: bool = False) -> Iterator[OptimizerShares]:
    """Reach shares of an optimiser; when the block ends, what belongs on a disk is there.

    Args:
        changed: shares are written to.
    """
    shares = OptimizerShares(changed)
    try:
        yield shares
    finally:
        shares.put_back()


def on_disk(optimizer: Any, group: int) -> bool:
    """Return whether a group's share lies on a disk; one of less than a MiB never does."""
    return bool(optimizer._swappable_optimizer_subgroup(group))


def begin_moments(optimizer: Any, step: int) -> None:
    """Give each group moments of zero and a count of steps, as if it had come to ``step``.

    Args:
        optimizer: of DeepSpeed, at any stage from 1 on.
        step: that is done.
    """
    stage_3 = hasattr(optimizer, "fp32_partitioned_groups_flat")
    flats = optimizer.fp32_partitioned_groups_flat if stage_3 else optimizer.single_partition_of_fp32_groups
    for group, flat in enumerate(flats):
        swapped = stage_3 and on_disk(optimizer, group)
        if swapped:
            optimizer._optimizer_states_and_gradient_swap_in(group)
        optimizer.optimizer.state[flat] = {
            "step": torch.tensor(float(step), device=flat.device),
            **{moment: torch.zeros_like(flat, requires_grad=False) for moment in MOMENTS},
        }
        if swapped:
            optimizer._optimizer_states_and_gradient_swap_out(group)
    if not stage_3:
        optimizer._lazy_init_hp_params_optimizer_state()
