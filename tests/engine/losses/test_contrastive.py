"""The contrastive objective against equations 9 to 11, written out as loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from engine.losses.contrastive import OUT, Projection, contrastive_loss, pair_losses
from engine.losses.settings import ContrastSettings

FOUR = [[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]]
"""Two pairs of unit vectors."""


def by_hand(vectors: list[list[float]], t: float, tau: float, beta: float) -> list[float]:
    def s(i: int, k: int) -> float:
        return sum(a * b for a, b in zip(vectors[i], vectors[k], strict=True))

    losses = []
    for i in range(len(vectors)):
        j = i + 1 if i % 2 == 0 else i - 1
        others = [k for k in range(len(vectors)) if k not in (i, j)]
        above = sum(math.exp((1 + beta) * s(i, k) / t) for k in others)
        below = sum(math.exp(beta * s(i, k) / t) for k in others)
        weighted = len(others) * above / below  # equation 11
        positive = math.exp(s(i, j) / t)
        negative = (weighted - len(others) * tau * positive) / (1 - tau)  # equation 10
        negative = max(negative, math.exp(-1 / t))
        losses.append(-math.log(positive / (positive + negative)))  # equation 9
    return losses


def unit_vectors(pairs: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(2 * pairs, 5, generator=generator, dtype=torch.float64), dim=1)


@pytest.mark.parametrize(("t", "tau", "beta"), [(0.5, 0.05, 1.0), (0.7, 0.1, 0.5), (1.0, 0.0, 2.0)])
def test_four_vectors_have_the_loss_of_the_equations(t: float, tau: float, beta: float) -> None:
    chosen = ContrastSettings(temperature=t, prior=tau, concentration=beta)
    found = pair_losses(torch.tensor(FOUR, dtype=torch.float64), chosen)
    expected = by_hand(FOUR, t, tau, beta)
    assert found.tolist() == pytest.approx(expected, rel=1e-9)
    assert float(contrastive_loss(torch.tensor(FOUR), chosen)) == pytest.approx(sum(expected) / 4, rel=1e-5)


@given(
    pairs=st.integers(2, 6),
    seed=st.integers(0, 1000),
    t=st.floats(0.2, 2),
    tau=st.floats(0, 0.5),
    beta=st.floats(0, 3),
)
@settings(max_examples=50)
def test_any_vectors_have_the_loss_of_the_equations(pairs, seed: int, t, tau, beta) -> None:
    vectors = unit_vectors(pairs, seed)
    found = pair_losses(vectors, ContrastSettings(temperature=t, prior=tau, concentration=beta))
    assert found.tolist() == pytest.approx(by_hand(vectors.tolist(), t, tau, beta), rel=1e-9)


def test_without_hardness_and_prior_it_is_plain_cross_entropy_over_the_others() -> None:
    vectors, t = unit_vectors(3, 0), 0.5
    found = pair_losses(vectors, ContrastSettings(temperature=t, prior=0, concentration=0))
    similar = (vectors @ vectors.T / t).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf)
    plain = F.cross_entropy(similar, torch.arange(6) ^ 1, reduction="none")
    torch.testing.assert_close(found, plain)


def test_negatives_are_never_taken_for_less_than_the_farthest_possible() -> None:
    # Negatives opposite to their anchors, positives equal: equation 10's first term is below zero.
    opposite = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [-1.0, 0.0]])
    chosen = ContrastSettings(temperature=0.5, prior=0.4)
    least = -math.log(math.exp(2) / (math.exp(2) + math.exp(-2)))
    assert pair_losses(opposite, chosen).tolist() == pytest.approx([least] * 4, rel=1e-4)


def test_a_single_pair_has_no_negatives_and_a_finite_loss() -> None:
    vectors = unit_vectors(1, 0).requires_grad_(True)
    loss = contrastive_loss(vectors, ContrastSettings())
    loss.backward()
    positive = math.exp(float(vectors[0].detach() @ vectors[1].detach()) / 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-2) / positive))
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()


@given(pairs=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_neither_the_order_of_pairs_nor_that_of_members_matters(pairs, seed: int) -> None:
    vectors = unit_vectors(pairs, seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(pairs, generator=generator)
    swapped = torch.randint(0, 2, (pairs,), generator=generator)
    rows = torch.stack([2 * order + swapped, 2 * order + 1 - swapped], dim=1).flatten()
    plain, moved = (pair_losses(v, ContrastSettings()) for v in (vectors, vectors[rows]))
    torch.testing.assert_close(moved, plain[rows])


def test_a_harder_negative_weighs_more_the_larger_the_concentration() -> None:
    vectors = torch.tensor(FOUR)
    soft, hard = (contrastive_loss(vectors, ContrastSettings(concentration=b)) for b in (0.0, 4.0))
    assert hard > soft


def test_projections_are_unit_vectors() -> None:
    torch.manual_seed(0)
    found = Projection(7)(torch.randn(6, 7))
    assert found.shape == (6, OUT)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(6))
