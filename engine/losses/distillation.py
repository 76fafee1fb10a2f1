"""Distil from a momentum teacher, a slowly moving average of the model (MESED, equation 15)."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F

Tensor = torch.Tensor

Module = TypeVar("Module", bound=nn.Module)

MOMENTUM = 0.995


def teacher_of(student: Module) -> Module:
    """Return a copy that does not learn: without gradients and dropout."""
    return copy.deepcopy(student).requires_grad_(False).eval()


@torch.no_grad()
def update_teacher(teacher: nn.Module, student: nn.Module, momentum: float = MOMENTUM) -> None:
    """Move the teacher towards the student: m * teacher + (1 - m) * student, each weight."""
    for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
        slow.lerp_(fast.to(slow.dtype), 1 - momentum)


def distillation_loss(teacher_logits_BN: Tensor, logits_BN: Tensor) -> Tensor:
    """Return the summed KL divergence of the student's predictions from the teacher's, a scalar.

    Equation 15 as printed begins with a minus sign; a divergence that is to be made small has none.
    """
    teacher_logprobs_BN = teacher_logits_BN.float().log_softmax(dim=1)
    return F.kl_div(
        logits_BN.float().log_softmax(dim=1), teacher_logprobs_BN, reduction="sum", log_target=True
    )
