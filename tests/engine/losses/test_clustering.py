"""The clustering objective against equations 13 and 14, written out as loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.losses.clustering import Assignment, clustering_loss
from engine.losses.settings import ContrastSettings

T, TAU, BETA = 0.5, 0.05, 1.0
PAPERS = ContrastSettings(temperature=T, prior=TAU, concentration=BETA)
FOUR = [[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.2, 0.3, 0.5]]
"""Probabilities of three classes for two pairs of samples."""


def by_hand(classes: list[list[float]]) -> float:
    n_classes = len(classes[0])
    sides = [classes[0::2], classes[1::2]]
    columns: list[list[float]] = []
    entropy = 0.0
    for m in range(n_classes):  # columns 2m and 2m + 1 are the same class, seen by both sides
        for side in sides:
            column = [sample[m] for sample in side]
            length = math.sqrt(sum(x * x for x in column))
            columns.append([x / length for x in column])
            mean = sum(column) / len(column)
            entropy -= mean * math.log(mean)
    total = 0.0
    for i, own in enumerate(columns):
        alike = [sum(a * b for a, b in zip(own, c, strict=True)) / T for c in columns]
        j = i + 1 if i % 2 == 0 else i - 1
        others = [x for k, x in enumerate(alike) if k not in (i, j)]
        hard = sum(math.exp((1 + BETA) * x) for x in others) / sum(math.exp(BETA * x) for x in others)
        positive = math.exp(alike[j])
        negative = max(len(others) * (hard - TAU * positive) / (1 - TAU), math.exp(-1 / T))
        total -= math.log(positive / (positive + negative))
    return total / len(columns) - entropy


def random_classes(pairs: int, n_classes: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(2 * pairs, n_classes, generator=generator, dtype=torch.float64)).softmax(dim=1)


def test_four_samples_have_the_loss_of_the_equations() -> None:
    found = clustering_loss(torch.tensor(FOUR, dtype=torch.float64), PAPERS)
    assert float(found) == pytest.approx(by_hand(FOUR), rel=1e-9)


@given(pairs=st.integers(1, 5), n_classes=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_any_samples_have_the_loss_of_the_equations(pairs, n_classes, seed: int) -> None:
    classes = random_classes(pairs, n_classes, seed)
    assert float(clustering_loss(classes, PAPERS)) == pytest.approx(by_hand(classes.tolist()), rel=1e-9)


@given(pairs=st.integers(2, 6), seed=st.integers(0, 1000))
@settings(max_examples=50)
def test_neither_the_order_of_pairs_nor_of_classes_nor_which_side_is_first_matters(pairs, seed: int) -> None:
    classes = random_classes(pairs, 4, seed)
    generator = torch.Generator().manual_seed(seed)
    order, columns = torch.randperm(pairs, generator=generator), torch.randperm(4, generator=generator)
    rows = torch.stack([2 * order + 1, 2 * order], dim=1).flatten()
    moved = classes[rows][:, columns]
    torch.testing.assert_close(clustering_loss(moved, PAPERS), clustering_loss(classes, PAPERS))


def certain(classes: list[int], n_classes: int = 4) -> torch.Tensor:
    return torch.eye(n_classes)[classes] * 0.96 + 0.01


def test_samples_spread_over_classes_are_better_than_all_in_one() -> None:
    spread = clustering_loss(certain([0, 0, 1, 1, 2, 2, 3, 3]), PAPERS)
    collapsed = clustering_loss(certain([0] * 8), PAPERS)
    assert spread + 1 < collapsed


def test_pairs_in_one_class_are_better_than_pairs_torn_apart() -> None:
    together = clustering_loss(certain([0, 0, 1, 1, 2, 2, 3, 3]), PAPERS)
    torn = clustering_loss(certain([0, 1, 1, 2, 2, 3, 3, 0]), PAPERS)
    assert together + 1 < torn


def test_a_class_without_samples_leaves_loss_and_gradients_finite() -> None:
    classes = torch.eye(3)[[0, 0, 1, 1]].requires_grad_(True)
    loss = clustering_loss(classes, PAPERS)
    loss.backward()
    assert loss.isfinite()
    assert classes.grad is not None
    assert classes.grad.isfinite().all()


def test_assignments_are_probabilities() -> None:
    torch.manual_seed(0)
    found = Assignment(7, 5)(torch.randn(6, 7))
    assert found.shape == (6, 5)
    assert (found > 0).all()
    torch.testing.assert_close(found.sum(dim=1), torch.ones(6))
