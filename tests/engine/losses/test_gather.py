"""The objectives on several processes without Ray: the loss and the gradients of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from engine.losses.gather import gathered
from engine.losses.settings import Schedule
from engine.training.trainer import Worker
from tests.support.pair_workers import TOTAL, losses_and_gradients, states_of_entities, worker
from tests.support.processes import run_processes

WORLD = 3
"""8 rows among three workers: 3, 3 and 2."""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    folder: Path = tmp_path_factory.mktemp("gather")
    run_processes(worker, WORLD, WORLD, folder)
    return load_file(folder / "means.safetensors")


@pytest.mark.slow
def test_several_workers_have_the_loss_and_the_gradients_of_one(several: dict[str, torch.Tensor]) -> None:
    assert TOTAL % WORLD
    alone = losses_and_gradients()
    assert several.keys() == alone.keys() | {"states"}
    # The clustering head, the contrastive head, the prediction head, and what all of them reach.
    for part in ("assignment.2", "projection.0", "predictor.head.0", "predictor.encoder.patches.project"):
        assert alone[f"None {part}.weight"].abs().max() > 1e-5
    for name, expected in alone.items():
        torch.testing.assert_close(several[name], expected, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.slow
def test_several_workers_encode_contexts_as_one_does_to_the_last_bit(
    several: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    alone = states_of_entities(tmp_path, Worker())
    assert alone.any()
    assert torch.equal(several["states"], alone)


def test_alone_nothing_is_gathered() -> None:
    states = torch.randn(4, 3)
    assert gathered(states, torch.zeros(4, dtype=torch.long), rank=0, world=1) is states


@pytest.mark.parametrize(
    ("on", "weights"),
    [
        ({"prediction"}, (1.0, 0, 0, 0)),
        ({"prediction", "distillation"}, (1.0, 0, 0, 0.02)),
        ({"prediction", "contrastive"}, (0.5, 0.5, 0, 0)),
        ({"prediction", "clustering"}, (0.8, 0, 0.2, 0)),
        ({"prediction", "contrastive", "clustering"}, (1.0, 0.5, 0.2, 0)),
        ({"prediction", "contrastive", "clustering", "distillation"}, (1.0, 0.5, 0.2, 0.02)),
        ({"contrastive"}, (0, 0.5, 0, 0)),
        ({"clustering"}, (0, 0, 0.2, 0)),
    ],
)
def test_the_weights_are_those_of_the_authors(on: set[str], weights: tuple[float, ...]) -> None:
    every = ("prediction", "contrastive", "clustering", "distillation")
    schedule = Schedule.model_validate({name: name in on for name in every})
    assert schedule.weights() == weights
    assert schedule.paired == bool(on & {"contrastive", "clustering"})


def test_separate_passes_are_those_of_the_authors_in_their_order() -> None:
    every = Schedule(passes="separate")
    assert every.epoch() == ("contrastive", "contrastive", "clustering", "clustering", "prediction")
    assert Schedule(passes="separate", clustering=False).epoch() == (
        "contrastive",
        "contrastive",
        "prediction",
    )
    assert Schedule(passes="separate", contrastive=False, clustering=False).epoch() == ("prediction",)
    assert Schedule().epoch() == (None,)


def test_distillation_without_a_pass_to_take_part_in_is_refused() -> None:
    with pytest.raises(ValidationError, match="no pass of its own"):
        Schedule(passes="separate", prediction=False)
    assert Schedule(prediction=False).weights().distillation == 0.02


@pytest.mark.parametrize("distillation", [False, True])
def test_a_schedule_that_learns_nothing_is_refused(distillation: bool) -> None:
    with pytest.raises(ValidationError, match="nothing would be learnt"):
        Schedule(prediction=False, contrastive=False, clustering=False, distillation=distillation)
