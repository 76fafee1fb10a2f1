"""A training whose numbers are none any more stops at once, says where, and writes no checkpoint of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import UserError
from engine.training.layout import Layout
from engine.training.lm import LARGEST_LOSS, LmTraining
from engine.training.partitioned import held_weights
from engine.training.settings import EncoderSettings, LmSettings
from engine.training.text import EncoderTraining
from engine.training.trainer import DivergedError, Trainer, all_finite
from tests.support.encoders import random_encoder
from tests.support.language_models import tiny_model
from tests.support.sentences import cached, random_rows
from tests.support.token_blocks import VOCABULARY, random_blocks

WILD = 1e30


def lm(rate: float, layout: Layout | None = None) -> LmTraining:
    settings = LmSettings(epochs=3, batch_size=8, learning_rate=rate, precision="float32", warmup=0)
    model: Any = tiny_model("llama", VOCABULARY).model.requires_grad_(True)
    return LmTraining(model, random_blocks(), random_blocks(4, seed=1), settings, layout)


def encoder(rate: float, folder: Path) -> EncoderTraining:
    text = random_encoder("bert", layers=2, dim=16)
    data = cached(text, random_rows(40, 5), folder, torch.float32)
    settings = EncoderSettings(epochs=3, batch_size=8, learning_rate=rate, precision="float32")
    return EncoderTraining(text, data, 5, settings)


@pytest.fixture(params=["lm", "lm in shares", "encoder"])
def started(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A function of the learning rate that opens a training."""
    if request.param == "encoder":
        return lambda rate: encoder(rate, tmp_path)
    return lambda rate: lm(rate, Layout(zero_stage=3) if "shares" in request.param else None)


def test_it_stops_at_the_first_loss_that_is_no_number(started: Any) -> None:
    training: Trainer = started(WILD)
    with pytest.raises(
        DivergedError, match=r"step \d+ is (nan|inf) .*at a learning rate of [\d.]+e\+\d\d"
    ) as e:
        for _ in training.run():
            pass
    assert "--learning-rate" in str(e.value)
    assert 1 <= training.step < training.total_steps
    assert np.isfinite(training.losses).all(), "the curve ends before it"


def test_weights_that_are_no_numbers_make_no_checkpoint(started: Any, tmp_path: Path) -> None:
    training: Trainer = started(1e-4)
    next(training.run())
    training.save(tmp_path / "good")
    trained = [p for p in training.module.parameters() if p.requires_grad][-1]
    with torch.no_grad():
        getattr(trained, "ds_tensor", trained).view(-1)[-1] = math.inf
    with pytest.raises(
        DivergedError, match=r"a weight after step 1 is nan \(.* a step before\), at a learning rate"
    ):
        training.save(tmp_path / "bad")
    assert (tmp_path / "good").is_dir()
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_ends_of_a_tensor_tell_whether_all_its_numbers_are_finite(dtype: torch.dtype) -> None:
    fine = torch.linspace(-3e38, 3e38, 99).to(dtype)
    broken = [
        fine.index_fill(0, torch.tensor([at]), n) for at in (0, 50) for n in (math.nan, math.inf, -math.inf)
    ]
    both = fine.index_fill(0, torch.tensor([1]), math.inf).index_fill(0, torch.tensor([2]), -math.inf)
    for one in (fine, fine[:0], *broken, both):
        assert bool(all_finite(one)) == bool(torch.isfinite(one).all())


@pytest.mark.parametrize(("rank", "held"), [(0, [0, 1, 2, 3]), (1, [4, 5]), (2, [])])
def test_what_lies_beyond_a_parameter_in_the_last_shares_is_no_weight(rank: int, held: list[float]) -> None:
    """Six weights among three workers of a share of four: two of them are padded."""
    parameter: Any = torch.nn.Parameter(torch.empty(0))
    parameter.ds_numel = 6
    parameter.ds_tensor = torch.full((4,), math.nan)
    parameter.ds_tensor.ds_numel = 4
    parameter.ds_tensor[: len(held)] = torch.tensor(held)
    assert held_weights(parameter, rank).tolist() == held


@pytest.mark.parametrize("mean", [math.nan, math.inf, LARGEST_LOSS, 1e6])
def test_a_perplexity_that_is_no_number_is_said_and_no_overflow(mean: float) -> None:
    training = lm(1e-4)
    with pytest.raises(UserError, match="before any training its mean loss") as broken:
        training._perplexity(mean)
    assert not isinstance(broken.value, DivergedError), "the learning rate has no part in it"
    training.step = 2
    with pytest.raises(DivergedError, match="held-out texts after step 2"):
        training._perplexity(mean)
    assert math.isfinite(training._perplexity(LARGEST_LOSS - 1))


@pytest.mark.parametrize("rate", [math.inf, math.nan])
def test_a_learning_rate_that_is_no_number_is_refused(rate: float) -> None:
    for kind in (EncoderSettings, LmSettings):
        with pytest.raises(ValueError, match=r"finite|greater"):
            kind(learning_rate=rate)
