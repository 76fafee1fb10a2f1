"""The teacher and its divergence against equation 15, written out as loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.losses.distillation import MOMENTUM, distillation_loss, teacher_of, update_teacher
from engine.models.multimodal import PredictionHead


def by_hand(teacher: list[list[float]], student: list[list[float]]) -> float:
    total = 0.0
    for told_logits, own_logits in zip(teacher, student, strict=True):
        told_sum, own_sum = (sum(math.exp(x) for x in row) for row in (told_logits, own_logits))
        for a, b in zip(told_logits, own_logits, strict=True):
            told, own = math.exp(a) / told_sum, math.exp(b) / own_sum
            total += told * math.log(told) - told * math.log(own)
    return total


def logits(seed: int, n: int = 4) -> torch.Tensor:
    return 2 * torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))


def test_four_predictions_have_the_divergence_of_the_equation() -> None:
    teacher = [[0.0, 1.0, 2.0], [1.0, 1.0, 1.0], [-1.0, 0.5, 0.0], [3.0, 0.0, 0.0]]
    student = [[0.5, 0.5, 0.0], [0.0, 1.0, 2.0], [-1.0, 0.5, 0.0], [0.0, 0.0, 3.0]]
    found = distillation_loss(torch.tensor(teacher), torch.tensor(student))
    assert float(found) == pytest.approx(by_hand(teacher, student), rel=1e-5)
    first = distillation_loss(torch.tensor(teacher[:1]), torch.tensor(student[:1]))
    assert float(first) == pytest.approx(by_hand(teacher[:1], student[:1]), rel=1e-5)


@given(one=st.integers(0, 1000), other=st.integers(0, 1000))
@settings(max_examples=50)
def test_any_predictions_have_the_divergence_of_the_equation_and_it_is_not_negative(one, other) -> None:
    teacher, student = logits(one), logits(other)
    found = float(distillation_loss(teacher, student))
    assert found == pytest.approx(by_hand(teacher.tolist(), student.tolist()), rel=1e-4, abs=1e-5)
    assert found >= -1e-5


def test_equal_predictions_do_not_diverge_whatever_is_added_to_the_logits() -> None:
    same = logits(0)
    assert float(distillation_loss(same, same)) == pytest.approx(0, abs=1e-6)
    assert float(distillation_loss(same, same + 3)) == pytest.approx(0, abs=1e-5)
    assert float(distillation_loss(same, logits(1))) > 0.1


def test_a_step_against_the_gradient_brings_the_student_nearer_to_the_teacher() -> None:
    teacher, student = logits(0), logits(1).requires_grad_(True)
    before = distillation_loss(teacher, student)
    before.backward()
    assert student.grad is not None
    # The divergence's own gradient: the student's probabilities less the teacher's.
    expected = student.detach().softmax(dim=1) - teacher.softmax(dim=1)
    torch.testing.assert_close(student.grad, expected, rtol=1e-4, atol=1e-6)
    assert distillation_loss(teacher, student.detach() - 0.1 * student.grad) < before


def test_the_teacher_is_a_copy_without_gradients_and_dropout() -> None:
    torch.manual_seed(0)
    student = PredictionHead(6, 4, dropout=0.5).train()
    teacher = teacher_of(student)
    states = torch.randn(3, 6)
    assert student.training
    assert all(p.requires_grad for p in student.parameters())
    assert not teacher(states).requires_grad
    torch.testing.assert_close(teacher(states), teacher(states))
    assert (student(states) != student(states)).any()
    torch.testing.assert_close(teacher(states), student.eval()(states).detach())
    own, copied = student[0], teacher[0]
    assert isinstance(own, nn.Linear)
    assert isinstance(copied, nn.Linear)
    with torch.no_grad():
        own.weight += 1
    assert (copied.weight != own.weight).all()


@pytest.mark.parametrize("momentum", [MOMENTUM, 0.9])
def test_every_weight_of_the_teacher_moves_by_the_formula(momentum: float) -> None:
    torch.manual_seed(0)
    student = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    teacher = teacher_of(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    before = [p.clone() for p in teacher.parameters()]
    kept = [p.detach().clone() for p in student.parameters()]
    update_teacher(teacher, student, momentum)
    for old, fast, slow in zip(before, kept, teacher.parameters(), strict=True):
        torch.testing.assert_close(slow, momentum * old + (1 - momentum) * fast)
    for old, fast in zip(kept, student.parameters(), strict=True):
        assert torch.equal(old, fast)
