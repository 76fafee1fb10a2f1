from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from engine.losses import entity_prediction
from engine.losses.entity_prediction import smoothed_loss

N = 50


@pytest.mark.parametrize("block", [1, 3 * N + 1, 1 << 20])
@pytest.mark.parametrize("smoothing", [0.0, 0.075])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_loss_and_gradient_are_those_of_torch(
    monkeypatch: pytest.MonkeyPatch, block: int, smoothing: float, dtype: torch.dtype, tolerance: float
) -> None:
    """Whatever the blocks, the type and the size of the logits, of which some are far apart."""
    monkeypatch.setattr(entity_prediction, "BLOCK_ELEMENTS", block)
    torch.manual_seed(0)
    scale = torch.tensor([0.1, 1, 10, 100, 1000, 1, 1])[:, None]
    logits = (torch.randn(7, N, dtype=torch.float64) * scale + 5).to(dtype).requires_grad_()
    entities = torch.tensor([0, 49, 7, 7, 3, 20, 1], dtype=torch.int32)
    wide = logits.detach().double().requires_grad_()
    found = smoothed_loss(logits, entities, smoothing)
    expected = F.cross_entropy(wide, entities.long(), label_smoothing=smoothing, reduction="sum")
    assert found.dtype == torch.promote_types(dtype, torch.float32)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    (one,), (other,) = torch.autograd.grad(found / 3, logits), torch.autograd.grad(expected / 3, wide)
    assert one.dtype == dtype
    assert (one.double() - other).norm() <= tolerance * other.norm()


def test_the_gradient_is_given_once() -> None:
    """It is scaled in its place, so that a second one would be scaled twice."""
    loss = smoothed_loss(torch.zeros(2, 4, requires_grad=True), torch.tensor([1, 2]), 0.1)
    (2 * loss).backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_loss_without_gradient_and_one_of_no_sentence() -> None:
    with torch.no_grad():
        loss = smoothed_loss(torch.zeros(2, 4), torch.tensor([1, 2]), 0.1)
    assert float(loss) == pytest.approx(2 * math.log(4))
    assert float(smoothed_loss(torch.zeros(0, 4), torch.zeros(0), 0.1)) == 0
