"""The four objectives against hand-computed cases of the paper's equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.encoders.clustering import Assignment, clustering_loss
from engine.encoders.contrast import ContrastSettings, Projection, contrastive_loss, pair_losses
from engine.encoders.distillation import distillation_loss, follow, teacher_of
from engine.encoders.entity_prediction import smoothed_loss
from engine.training.objectives import Schedule

PAPER = ContrastSettings()


def unit(*angles: float) -> torch.Tensor:
    return torch.tensor([[math.cos(a), math.sin(a)] for a in angles])


def plain_loss(vectors: torch.Tensor, i: int, t: float, tau: float, beta: float) -> float:
    """Equations 9 to 11, term by term."""
    s = (vectors.double() @ vectors.double().T).tolist()
    n, j = len(vectors), i ^ 1
    others = [k for k in range(n) if k not in (i, j)]
    over = sum(math.exp((1 + beta) * s[i][k] / t) for k in others)
    under = sum(math.exp(beta * s[i][k] / t) for k in others)
    reweighted = (n - 2) * over / under
    positive = math.exp(s[i][j] / t)
    negative = max((-(n - 2) * tau * positive + reweighted) / (1 - tau), math.exp(-1 / t))
    return -math.log(positive / (positive + negative))


def test_contrast_of_two_pairs_by_hand() -> None:
    """Two pairs at right angles, t = 0.5, tau = 0.05, beta = 1: s+ = 1, both negatives 0.

    R~ = 2 * 1, e^(1/0.5) = 7.389; R- = max((2 - 2 * 0.05 * 7.389) / 0.95, 0.135) = 1.3275;
    loss = -log(7.389 / 8.7166) = 0.1652.
    """
    vectors = unit(0, 0, math.pi / 2, math.pi / 2)
    torch.testing.assert_close(pair_losses(vectors, PAPER), torch.full((4,), 0.1652), atol=1e-4, rtol=0)


def test_what_is_expected_of_unknown_positives_does_not_make_negatives_less_than_their_bound() -> None:
    """Opposite pairs: R~ = 2 e^-2 = 0.27 < 2 * 0.05 * 7.389, so R- = e^-2 = 0.1353: 0.01815."""
    vectors = unit(0, 0, math.pi, math.pi)
    torch.testing.assert_close(pair_losses(vectors, PAPER), torch.full((4,), 0.01815), atol=1e-5, rtol=0)


angles = st.lists(st.floats(-3, 3), min_size=4, max_size=12).map(lambda x: x[: len(x) // 2 * 2])


@settings(max_examples=50, deadline=None)
@given(angles, st.floats(0.2, 1), st.floats(0, 0.3), st.floats(0, 2))
def test_contrast_is_what_the_equations_say_in_any_order(
    given_angles: list[float], t: float, tau: float, beta: float
) -> None:
    vectors = unit(*given_angles)
    chosen = ContrastSettings(temperature=t, prior=tau, concentration=beta)
    found = pair_losses(vectors, chosen)
    plain = [plain_loss(vectors, i, t, tau, beta) for i in range(len(vectors))]
    np.testing.assert_allclose(found.numpy(), plain, rtol=1e-3, atol=1e-4)
    swapped = vectors.reshape(-1, 2, 2).flip(0).flip(1).reshape(-1, 2)
    torch.testing.assert_close(
        contrastive_loss(swapped, chosen), contrastive_loss(vectors, chosen), rtol=1e-4, atol=1e-5
    )


def test_clustering_by_hand() -> None:
    """Two classes, two pairs, each surely of its own: columns (1, 0) and (0, 1), both seen twice.

    The four columns are those of the contrast by hand: 0.1652; both mean assignments are even, so each
    entropy is log 2: 0.1652 - 2 log 2 = -1.2211.
    """
    classes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    assert float(clustering_loss(classes, PAPER)) == pytest.approx(0.1652 - 2 * math.log(2), abs=1e-4)
    one = torch.tensor([[0.999, 0.001]] * 4)
    assert float(clustering_loss(one, PAPER)) > float(clustering_loss(classes, PAPER)) + 1


def test_distillation_is_the_divergence_from_the_teacher_by_hand() -> None:
    """Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2 = 0.1308; of two rows, one equal."""
    teacher = torch.tensor([[math.log(3), 0.0], [1.0, 1.0]])
    student = torch.tensor([[0.0, 0.0], [2.0, 2.0]])
    assert float(distillation_loss(teacher, student)) == pytest.approx(0.1308, abs=1e-4)


def test_the_teacher_follows_slowly_and_does_not_learn() -> None:
    student = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
    teacher = teacher_of(student)
    first = student[0].weight.detach().clone()
    with torch.no_grad():
        student[0].weight += 1
    follow(teacher, student, momentum=0.9)
    torch.testing.assert_close(teacher[0].weight, first + 0.1)
    assert not teacher.training
    assert student.training
    assert not any(p.requires_grad for p in teacher.parameters())


def test_smoothed_prediction_by_hand() -> None:
    """Four entities, even logits: whatever the smoothing, every entity costs log 4."""
    loss = smoothed_loss(torch.zeros(3, 4), torch.tensor([0, 1, 2]), 0.075)
    assert float(loss) == pytest.approx(3 * math.log(4), abs=1e-5)
    sure = smoothed_loss(torch.tensor([[math.log(7), 0.0, 0.0, 0.0]]), torch.tensor([0]), 0.2)
    # -(0.8 + 0.05) log 0.7 - 3 * 0.05 log 0.1
    assert float(sure) == pytest.approx(-0.85 * math.log(0.7) - 0.15 * math.log(0.1), abs=1e-5)


def test_heads_give_unit_vectors_and_probabilities() -> None:
    states = torch.randn(6, 8)
    torch.testing.assert_close(Projection(8)(states).norm(dim=1), torch.ones(6))
    torch.testing.assert_close(Assignment(8, 5)(states).sum(dim=1), torch.ones(6))


def test_weights_depend_on_what_is_trained_beside() -> None:
    off = {"contrastive": False, "clustering": False, "distillation": False}
    assert Schedule().weights() == (0.5, 0.5, 0.2, 0.02)
    assert Schedule(**off).weights() == (1, 0, 0, 0)
    assert Schedule(**{**off, "clustering": True}).weights() == (0.8, 0, 0.2, 0)
    with pytest.raises(ValueError, match="nothing would be learnt"):
        Schedule(prediction=False, contrastive=False, clustering=False)
