"""What decays and what does not, of every training and objective."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine.losses.settings import Schedule
from engine.models.text import TextEncoder
from engine.training.layout import EngineLayout
from engine.training.lm import TokenLoss
from engine.training.multimodal import MultimodalTraining
from engine.training.optimizer import open_engine, parameter_groups
from engine.training.pairs import nearest_neighbors
from engine.training.settings import EncoderSettings, MultimodalSettings
from engine.training.text import EncoderTraining
from engine.training.trainer import Trainer
from tests.support.contexts import random_contexts
from tests.support.encoders import random_encoder
from tests.support.language_models import Family, tiny_model
from tests.support.sentences import cached, random_rows

ENTITIES = 9
OBJECTIVES = ("prediction", "contrastive", "clustering", "distillation")
SCHEDULES = [
    Schedule.model_validate({"clusters": 3} | dict(zip(OBJECTIVES, chosen, strict=True)))
    for chosen in itertools.product([True, False], repeat=4)
    if any(chosen[:3])
]
NORMS = (nn.LayerNorm, nn.BatchNorm1d)


def named(schedule: Schedule) -> str:
    return "+".join(objective for objective in OBJECTIVES if getattr(schedule, objective))


def check_groups(training: Trainer) -> set[str]:
    """Check the groups of a training's optimiser; return the names of norms' scales, none of which decays."""
    groups = training.engine.optimizer.param_groups
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    learning = {n: p for n, p in training.module.named_parameters() if p.requires_grad}
    assert len(decay) == sum(len(group["params"]) for group in groups) == len(learning)
    for name, parameter in learning.items():
        assert (decay[id(parameter)] > 0) == (parameter.ndim > 1), name
    scales = {
        f"{path}.weight"
        for path, module in training.module.named_modules()
        if isinstance(module, NORMS) and f"{path}.weight" in learning
    }
    assert all(decay[id(learning[name])] == 0 for name in scales)
    return scales


def test_of_the_text_encoder(tmp_path: Path) -> None:
    encoder = TextEncoder.load("embedded")
    data = cached(encoder, random_rows(20, ENTITIES), tmp_path, torch.float32)
    assert len(check_groups(EncoderTraining(encoder, data, ENTITIES, EncoderSettings(epochs=1)))) == 2


@pytest.mark.parametrize(
    "schedule", SCHEDULES, ids=lambda s: "+".join(o for o in OBJECTIVES if getattr(s, o))
)
def test_of_every_objective(schedule: Schedule, tmp_path: Path) -> None:
    text = random_encoder("bert")
    vectors = np.random.default_rng(0).normal(size=(ENTITIES, 4)).astype(np.float32)
    lists = nearest_neighbors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    settings = MultimodalSettings(
        epochs=1, batch_size=16, visual_layers=1, cross_layers=1, precision="float32", schedule=schedule
    )
    data = random_contexts(text, tmp_path, entities=ENTITIES)
    scales = check_groups(MultimodalTraining(text, data, lists, settings))
    assert "predictor.head.2.weight" in scales, "the name says nothing of a norm"
    assert ("projection.1.weight" in scales) == schedule.contrastive


@pytest.mark.parametrize("family", ["llama", "gpt2", "bloom"])
def test_of_the_language_model(family: Family) -> None:
    """As it is handed to DeepSpeed, whose shared states have flat parameters."""
    model = tiny_model(family).model.requires_grad_(True)
    decayed, plain = parameter_groups(TokenLoss(model), 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    found = {id(p): True for p in decayed["params"]} | {id(p): False for p in plain["params"]}
    assert len(found) == len(list(model.parameters()))
    for name, parameter in model.named_parameters():
        assert found[id(parameter)] == (parameter.ndim > 1), name
        assert not (found[id(parameter)] and ("norm" in name or "ln_" in name)), name


def test_what_does_not_learn_is_in_no_group() -> None:
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    decayed, plain = parameter_groups(module, 0.1)
    assert [tuple(p.shape) for p in decayed["params"]] == [(2, 2)]
    assert [tuple(p.shape) for p in plain["params"]] == [(2,)]


@pytest.mark.parametrize("clip", [0.5, 1e6])
def test_one_worker_steps_as_plain_torch_does_and_copies_no_gradients(
    clip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over two micro-batches, clipped or not; what no loss reaches has gradients of zeros, and so decays."""
    torch.manual_seed(0)
    ours = nn.ModuleDict({"used": nn.Linear(3, 2), "idle": nn.Linear(3, 2)})
    plain = copy.deepcopy(ours)
    inputs, cpu = torch.randn(2, 4, 3), torch.device("cpu")
    optimizers = [torch.optim.AdamW(parameter_groups(m, 0.1), lr=0.1) for m in (ours, plain)]
    engine = open_engine(ours, optimizers[0], EngineLayout(), 4, 2, clip, cpu)
    monkeypatch.setattr(engine, "allreduce_bucket", lambda *_: pytest.fail("gradients were copied"))
    for _ in range(3):
        for part in inputs:
            engine.backward(ours["used"](part).square().sum())
            engine.step()
        optimizers[1].zero_grad()
        (sum(plain["used"](part).square().sum() for part in inputs) / 2).backward()
        for parameter in plain["idle"].parameters():
            parameter.grad = torch.zeros_like(parameter)
        assert (nn.utils.clip_grad_norm_(plain.parameters(), clip) > clip) == (clip < 1)
        optimizers[1].step()
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other)
