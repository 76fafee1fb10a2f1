"""The estimate of the loss from some entities, against the loss over all."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from engine.losses.entity_prediction import EntityHead, smoothed_loss
from engine.losses.sampled_softmax import drawn_entities, sampled_loss
from engine.training.settings import EncoderSettings

N, D, B = 60, 8, 6
ENTITIES = torch.tensor([0, 59, 7, 7, 30, 1], dtype=torch.int32)


@pytest.fixture
def head() -> nn.Sequential:
    torch.manual_seed(0)
    found = EntityHead(D, N).double()
    for parameter in found[2].parameters():
        nn.init.normal_(parameter, std=0.5)
    return found


@pytest.fixture
def states() -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randn(B, D, dtype=torch.float64)


def full(head: nn.Sequential, states: torch.Tensor, smoothing: float) -> torch.Tensor:
    return smoothed_loss(head(states), ENTITIES, smoothing)


@pytest.mark.parametrize("smoothing", [0.0, 0.075])
def test_with_all_entities_it_is_the_full_loss_and_its_gradient(
    smoothing: float, head: nn.Sequential, states: torch.Tensor
) -> None:
    expected = full(head, states, smoothing)
    found = sampled_loss(head, states, ENTITIES, smoothing, drawn_entities(N, N + 5))
    assert found.item() == pytest.approx(expected.item(), rel=1e-12)
    parameters = list(head.parameters())
    for one, other in zip(
        torch.autograd.grad(found, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_in_expectation_the_sum_of_exponentials_is_the_full_one(
    head: nn.Sequential, states: torch.Tensor
) -> None:
    """Without smoothing exp(loss) of a sentence is that sum over its entity's own."""
    torch.manual_seed(2)
    logits = head(states[:1])[0]
    exact = logits.exp().sum() / logits[ENTITIES[0]].exp()
    found = torch.stack(
        [sampled_loss(head, states[:1], ENTITIES[:1], 0.0, drawn_entities(N, 20)).exp() for _ in range(4000)]
    )
    error = found.std() / len(found) ** 0.5
    assert abs(found.mean() - exact) < 4 * error
    assert error < 0.01 * exact


def test_the_estimate_nears_the_full_loss_with_the_sample(head: nn.Sequential, states: torch.Tensor) -> None:
    torch.manual_seed(3)
    exact = full(head, states, 0.075).item()

    def bias(samples: int) -> float:
        found = [
            sampled_loss(head, states, ENTITIES, 0.075, drawn_entities(N, samples)).item()
            for _ in range(1500)
        ]
        return sum(found) / len(found) - exact

    few, more = bias(10), bias(40)
    assert few < 0, "the logarithm of a mean is above the mean of logarithms"
    assert abs(more) < abs(few) / 4
    assert abs(more) < 0.02 * exact


def test_the_mean_gradient_nears_that_of_the_full_loss(head: nn.Sequential, states: torch.Tensor) -> None:
    torch.manual_seed(4)
    (expected,) = torch.autograd.grad(full(head, states, 0.075), list(head.parameters())[2])

    def error(samples: int, turns: int = 1500) -> float:
        summed = torch.zeros_like(expected)
        for _ in range(turns):
            loss = sampled_loss(head, states, ENTITIES, 0.075, drawn_entities(N, samples))
            summed += torch.autograd.grad(loss, list(head.parameters())[2])[0]
        return float((summed / turns - expected).norm() / expected.norm())

    few, more = error(10), error(40)
    assert more < few / 2
    assert more < 0.05


def test_it_is_chosen_by_the_number_of_entities() -> None:
    assert EncoderSettings().samples_of(200_000) is None
    assert EncoderSettings().samples_of(200_001) == 8192
    assert EncoderSettings(entity_loss="full").samples_of(10**6) is None
    assert EncoderSettings(entity_loss="sampled", sampled_entities=5).samples_of(50) == 5
    assert "entity_loss" not in EncoderSettings().model_dump(), "runs that exist keep their names"
