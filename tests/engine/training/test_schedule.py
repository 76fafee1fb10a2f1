"""Learning rates against the rules they are named after, written down plainly."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.errors import UserError
from engine.models.text import TextEncoder
from engine.training.order import epoch_batches
from engine.training.settings import EncoderSettings, MultimodalSettings
from engine.training.text import EncoderTraining
from tests.support.encoders import random_encoder, tiny_model
from tests.support.sentences import cached, random_rows

ENTITIES = 7
PAPER = EncoderSettings(
    epochs=2,
    batch_size=16,
    learning_rate=4e-5,
    learning_rate_schedule="constant",
    weight_decay=1e-2,
    clip=0,
    precision="float32",
)
"""RetExpan's, but for the size of a batch and the number of passes."""


@pytest.mark.parametrize("total", [1, 7, 40])
def test_a_constant_rate_is_the_same_at_every_step(total: int) -> None:
    for settings in (PAPER, MultimodalSettings(learning_rate=1e-5, learning_rate_schedule="constant")):
        assert {settings.rate(step, total) for step in range(total)} == {settings.learning_rate}


def test_one_cycle_rises_for_three_tenths_and_falls_by_half_cosines() -> None:
    settings, total = EncoderSettings(learning_rate=1.0), 100
    for step in range(total):
        if step < 30:
            plain = 0.04 + 0.96 * math.sin(math.pi / 2 * step / 30) ** 2
        else:
            plain = 4e-6 + (1 - 4e-6) * math.cos(math.pi / 2 * (step - 30) / 70) ** 2
        assert settings.rate(step, total) == pytest.approx(plain, rel=1e-9)


def test_the_papers_training_is_that_of_its_plain_loop(tmp_path: Path) -> None:
    """The whole model forward, torch's own loss and AdamW, decay by the names that the authors go by."""
    rows, encoder = random_rows(40, ENTITIES), random_encoder("bert")
    plain = copy.deepcopy(encoder.model).requires_grad_(False)
    ours = EncoderTraining(encoder, cached(encoder, rows, tmp_path, torch.float32), ENTITIES, PAPER)
    sizes = (encoder.dim, encoder.dim), (encoder.dim, ENTITIES)
    head = torch.nn.Sequential(torch.nn.Linear(*sizes[0]), torch.nn.GELU(), torch.nn.Linear(*sizes[1]))
    head.load_state_dict(ours.module.head.state_dict())  # type: ignore[union-attr]
    plain.encoder.layer[-1].requires_grad_(True)
    model = torch.nn.ModuleDict({"bert": plain, "ent_pred_head": head})
    none = ("bias", "LayerNorm.weight")
    groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[any(word in name for word in none)].append(parameter)
    decays = [{"params": groups[False], "weight_decay": 1e-2}, {"params": groups[True], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(decays, lr=4e-5)
    losses = []
    for epoch in range(PAPER.epochs):
        for batch in epoch_batches(rows.lengths, PAPER.batch_size, PAPER.seed, epoch):
            ids, lengths = rows.padded_ids(batch)
            attended = torch.arange(ids.shape[1])[None] < lengths[:, None]
            states = plain(input_ids=ids, attention_mask=attended.long()).last_hidden_state
            at_mask = states[torch.arange(len(batch)), torch.from_numpy(rows.mask_index[batch])]
            labels = torch.from_numpy(rows.entity_id[batch])
            loss = F.cross_entropy(head(at_mask), labels, label_smoothing=0.075)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
    reports = list(ours.run())
    assert [report.learning_rate for report in reports] == [4e-5] * len(losses)
    np.testing.assert_allclose(ours.losses, losses, rtol=1e-5)
    trained = dict(encoder.model.named_parameters())
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(trained[name], parameter, rtol=1e-4, atol=1e-6)
    moved = (
        random_encoder("bert").model.encoder.layer[-1].output.dense.weight
        - trained["encoder.layer.2.output.dense.weight"]
    )
    assert moved.abs().max() > 1e-4, "six steps at 4e-5"


def test_settings_that_came_later_are_in_no_name_by_default() -> None:
    assert "schedule" not in EncoderSettings().model_dump_json()
    assert '"learning_rate_schedule":"constant"' in PAPER.model_dump_json()
    assert '"last_layer_dropout":0.1' in EncoderSettings(last_layer_dropout=0.1).model_dump_json()
    assert EncoderSettings.model_validate(PAPER.model_dump()) == PAPER


def test_dropout_changes_the_loss_is_repeated_and_ends_with_the_training(tmp_path: Path) -> None:
    rows = random_rows(40, ENTITIES)
    curves = []
    for dropout in (0.3, 0.3, 0.0):
        encoder = random_encoder("bert")
        data = cached(encoder, rows, tmp_path, torch.float32)
        run = EncoderTraining(
            encoder, data, ENTITIES, PAPER.model_copy(update={"last_layer_dropout": dropout})
        )
        curves.append([report.loss for report in run.run()])
        states, lengths, mask, _ = data.gather(np.arange(4))
        with torch.no_grad():
            assert torch.equal(encoder.last(states, lengths, mask), encoder.last(states, lengths, mask))
    assert curves[0] == curves[1]
    assert min(abs(a - b) for a, b in zip(curves[0], curves[2], strict=True)) > 1e-4


def test_dropout_is_refused_where_the_last_layer_is_computed_whole(tmp_path: Path) -> None:
    encoder = TextEncoder(tiny_model("mpnet", vocab_size=20_000))
    data = cached(encoder, random_rows(4, 2), tmp_path, torch.float32)
    with pytest.raises(
        UserError, match=r"--last-layer-dropout 0.1: the last layer of this encoder \(mpnet\)"
    ):
        EncoderTraining(encoder, data, 2, EncoderSettings(last_layer_dropout=0.1))
