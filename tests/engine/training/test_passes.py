"""Separate passes and refreshed pairs against a training and a mining written out plainly."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from engine.losses.settings import Schedule
from engine.models.text import TextEncoder
from engine.training.contexts import Contexts
from engine.training.multimodal import MultimodalTraining
from engine.training.order import epoch_batches
from engine.training.pairs import NeighborLists, PairedBatches, nearest_neighbors
from engine.training.schedule import one_cycle
from engine.training.settings import MultimodalSettings
from tests.support.contexts import random_contexts
from tests.support.encoders import random_encoder
from tests.support.plain_objectives import clustering, contrast, distilled

ENTITIES, BATCH = 9, 16
NO_GRADIENT = ("key.bias", "assignment.2.bias", "cross.0.output.LayerNorm.bias")
"""What a softmax or a batch normalisation takes off again: gradients of rounding, which AdamW makes large."""
SEPARATE = Schedule(clusters=3, passes="separate")


@pytest.fixture
def text() -> TextEncoder:
    return random_encoder("bert")


@pytest.fixture
def data(text: TextEncoder, tmp_path: Path) -> Contexts:
    return random_contexts(text, tmp_path, entities=ENTITIES)


def lists() -> NeighborLists:
    vectors = np.random.default_rng(0).normal(size=(ENTITIES, 4)).astype(np.float32)
    return nearest_neighbors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def training(text: TextEncoder, data: Contexts, schedule: Schedule, epochs: int = 1) -> MultimodalTraining:
    settings = MultimodalSettings(
        head="trained",  # the authors' own
        epochs=epochs,
        batch_size=BATCH,
        visual_layers=1,
        cross_layers=1,
        dropout=0,
        modality_dropout=0,
        clip=0.5,
        precision="float32",
        schedule=schedule,
    )
    return MultimodalTraining(text, data, lists(), settings)


def plainly(ours: MultimodalTraining, data: Contexts) -> nn.Module:
    """Return what a plain loop over the authors' passes makes of a copy of a training's modules."""
    module: Any = copy.deepcopy(ours.module)
    settings = ours.settings
    predictor, teacher = module.predictor, copy.deepcopy(ours.predictor).eval()
    slow = {id(p) for p in predictor.encoder.last.parameters()}
    groups = [
        {
            "params": [p],
            "weight_decay": settings.weight_decay if p.ndim > 1 else 0.0,
            "share": settings.text_share if id(p) in slow else 1.0,
        }
        for p in module.parameters()
        if p.requires_grad
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0)
    rows = data.usable("text+image")
    pairs = PairedBatches(data.entity_id, rows, lists(), BATCH, settings.seed)
    single = [rows[b] for b in epoch_batches(data.lengths[rows], BATCH, settings.seed, 0)]
    passes = [("contrast", pairs.epoch(0)), ("contrast", pairs.epoch(1))]
    passes += [("clustering", pairs.epoch(2)), ("clustering", pairs.epoch(3)), ("prediction", single)]
    total, step = sum(len(batches) for _, batches in passes), 0
    for objective, batches in passes:
        for batch in batches:
            context = data.gather(batch, "text+image")
            states, logits = predictor(context)
            if objective == "contrast":
                loss = 0.5 * contrast(F.normalize(nn.Sequential.forward(module.projection, states), dim=1))
            elif objective == "clustering":
                loss = 0.2 * clustering(module.assignment(states))
            else:
                with torch.no_grad():
                    for old, new in zip(teacher.parameters(), predictor.parameters(), strict=True):
                        old.copy_(0.995 * old + 0.005 * new)
                    told = teacher(context)[1]
                entities = data.entities_of(batch)
                loss = 0.98 * F.cross_entropy(logits, entities, label_smoothing=0.075)
                loss = loss + 0.02 * distilled(told, logits)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
            for group in optimizer.param_groups:
                group["lr"] = one_cycle(step, total, settings.learning_rate) * group["share"]
            optimizer.step()
            step += 1
    return module


def test_separate_passes_end_as_a_plain_loop_over_the_authors_passes(text, data) -> None:
    ours = training(text, data, SEPARATE)
    before = copy.deepcopy(ours.module.state_dict())
    plain = plainly(ours, data).state_dict()
    steps = list(ours.run())
    assert len(steps) == ours.total_steps == 4 * 4 + 4
    compared = set()
    for name, expected in plain.items():
        moved = float((expected.double() - before[name]).norm())
        if not moved or name.endswith(NO_GRADIENT):
            continue
        off = float((ours.module.state_dict()[name].double() - expected).norm())
        assert off < 5e-3 * moved, name
        compared.add(name)
    assert {"projection.0.weight", "assignment.2.weight", "predictor.head.0.weight"} <= compared


def test_one_sum_is_one_pass_and_the_same_batches_as_ever(text, data) -> None:
    ours = training(text, data, Schedule(clusters=3), epochs=2)
    pairs = PairedBatches(data.entity_id, data.usable("text+image"), lists(), BATCH, ours.settings.seed)
    for epoch in range(2):
        for found, expected in zip(ours.batches(epoch), pairs.epoch(epoch), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert ours.steps_per_epoch == len(pairs)
    assert ours.objective is None


def plain_states(ours: MultimodalTraining, data: Contexts) -> np.ndarray:
    """Each entity's mean state, one context at a time, nothing padded."""
    encoder = copy.deepcopy(ours.predictor.encoder).eval()
    states: dict[int, list[torch.Tensor]] = {}
    for row in data.usable("text+image"):
        with torch.no_grad():
            state = encoder(*data.gather(np.array([row]), "text+image"))[0]
        states.setdefault(int(data.entity_id[row]), []).append(state)
    return np.stack([torch.stack(states[e]).double().mean(dim=0).numpy() for e in range(ENTITIES)])


@pytest.mark.parametrize("passes", ["sum", "separate"])
def test_pairs_are_mined_anew_from_the_models_own_states(text, data, passes: str) -> None:
    schedule = Schedule.model_validate({"clusters": 3, "passes": passes, "refresh_pairs": 2})
    ours = training(text, data, schedule, epochs=4)
    first = ours._lists.lists
    begun = [array.copy() for array in (first.positive, first.negative)]
    for step in ours.run():
        if step.step == ours.steps_per_epoch:
            np.testing.assert_array_equal(ours._lists.lists.positive, begun[0])
        if step.step != 2 * ours.steps_per_epoch:
            continue
        states = plain_states(ours, data)
        alike = states / np.linalg.norm(states, axis=1, keepdims=True)
        alike -= alike.mean(axis=0)
        alike /= np.linalg.norm(alike, axis=1, keepdims=True)
        likeness = alike @ alike.T
        np.fill_diagonal(likeness, np.inf)
        order = np.argsort(-likeness, axis=1)
        mined = ours._lists.lists
        np.testing.assert_array_equal(mined.positive, order[:, :6])
        np.testing.assert_array_equal(mined.negative, order[:, 6:])
        assert (mined.positive != begun[0]).any()
        pairs = PairedBatches(data.entity_id, data.usable("text+image"), mined, BATCH, ours.settings.seed)
        place = 2 * (1 if passes == "sum" else 4)
        np.testing.assert_array_equal(ours.batches(2)[0], pairs.epoch(place)[0])
        kept = mined.positive.copy()
        assert ours.predictor.training
    # The end of the run is no beginning of an epoch.
    np.testing.assert_array_equal(ours._lists.lists.positive, kept)


def test_without_pairs_nothing_is_mined(text, data) -> None:
    schedule = Schedule(contrastive=False, clustering=False, refresh_pairs=1)
    assert not schedule.refreshes
    ours = training(text, data, schedule, epochs=2)
    begun = ours._lists.lists.positive.copy()
    for _ in ours.run():
        pass
    np.testing.assert_array_equal(ours._lists.lists.positive, begun)
