"""MESED's vision and vision-language baselines: states by hand, and trained by entity prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from engine.models.baselines import CrossAttentionEncoder, ImageEncoder, TwoTowers
from engine.models.image_tower import ImageTower
from engine.models.multimodal import EntityPredictionModel
from engine.models.settings import MultimodalConfig
from engine.models.text import TextEncoder
from engine.training.deepspeed import torch_settings_restored
from engine.training.multimodal import MultimodalTraining
from engine.training.pairs import nearest_neighbors
from engine.training.settings import (
    BASELINES,
    Baseline,
    MultimodalSettings,
    baseline_settings,
)
from tests.engine.models.test_image_tower import MODELS
from tests.support.contexts import random_contexts
from tests.support.encoders import draw_weights, random_encoder

TOKENS, WIDTH, ENTITIES = 17, 16, 9
CONFIG = MultimodalConfig(n_patches=TOKENS, vision_dim=WIDTH, cross_layers=2)
LENGTHS, MASKS = torch.tensor([6, 3, 4]), torch.tensor([2, 1, 1])
SEEN = torch.tensor([True, True, False])


@pytest.fixture
def text() -> TextEncoder:
    return random_encoder("bert")


@pytest.fixture
def tower() -> ImageTower:
    torch.manual_seed(0)
    model = MODELS["vit"]()
    draw_weights(model, 0.1)
    return ImageTower(model)


def batch(text: TextEncoder) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return torch.randn(3, 6, text.dim), LENGTHS, MASKS, torch.randn(3, TOKENS, WIDTH), SEEN


def test_an_image_encoder_is_its_tower_and_reads_no_text(text, tower) -> None:
    given = batch(text)
    found = ImageEncoder(text.last, tower, CONFIG)(*given)
    torch.testing.assert_close(found[:2], tower(given[3][:2]))
    assert not found[2].any()


def test_the_cosine_of_two_towers_is_the_mean_of_theirs(text, tower) -> None:
    given = batch(text)
    found = TwoTowers(text.last, tower, CONFIG)(*given).detach()
    words, looks = text.last(given[0], LENGTHS, MASKS).detach(), tower(given[3]).detach()
    assert found.shape == (3, text.dim + tower.dim)
    # Context 1 has no words and context 2 no image: what they have in common with 0 is the other side.
    expected = F.cosine_similarity(words[0], words[2], dim=0) / np.sqrt(2)
    assert F.cosine_similarity(found[0], found[2], dim=0).item() == pytest.approx(expected.item(), abs=1e-5)
    expected = F.cosine_similarity(looks[0], looks[1], dim=0) / np.sqrt(2)
    assert F.cosine_similarity(found[0], found[1], dim=0).item() == pytest.approx(expected.item(), abs=1e-5)


def attend(module: torch.nn.MultiheadAttention, asks_AD: torch.Tensor, told_TD: torch.Tensor) -> torch.Tensor:
    """Scaled dot-product attention, a head at a time."""
    d = module.embed_dim
    weights, biases = module.in_proj_weight.split(d), module.in_proj_bias.split(d)
    q, k, v = (x @ w.T + b for x, w, b in zip((asks_AD, told_TD, told_TD), weights, biases, strict=True))
    heads = []
    for h in range(module.num_heads):
        own = slice(h * module.head_dim, (h + 1) * module.head_dim)
        heads.append((q[:, own] @ k[:, own].T / module.head_dim**0.5).softmax(dim=1) @ v[:, own])
    return torch.cat(heads, dim=1) @ module.out_proj.weight.T + module.out_proj.bias


@pytest.mark.parametrize("i", [0, 1, 2])
def test_text_attends_to_itself_and_then_to_the_image(text, tower, i: int) -> None:
    encoder, given = CrossAttentionEncoder(text.last, tower, CONFIG).eval(), batch(text)
    torch.nn.init.normal_(encoder.absent_D)
    with torch.no_grad():
        found = encoder(*given)[i]
        own = text.last.layer(given[0][i : i + 1, : LENGTHS[i]])[0]
        image = encoder.project(tower.tokens(given[3][i : i + 1]))[0]
        told = torch.cat([encoder.absent_D[None], image if SEEN[i] else image[:0]])
        layer: Any
        for layer in encoder.fusion:
            own = layer.norm1(own + attend(layer.self_attn, own, own))
            own = layer.norm2(own + attend(layer.multihead_attn, own, told))
            own = layer.norm3(own + layer.linear2(F.gelu(layer.linear1(own))))
    torch.testing.assert_close(found, own[MASKS[i]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("baseline", ["image", "two-towers", "albef"])
def test_it_is_trained_by_entity_prediction_and_read_again(text, tower, tmp_path, baseline: Baseline) -> None:
    data = random_contexts(text, tmp_path, entities=ENTITIES, patches=TOKENS, channels=WIDTH)
    base = MultimodalSettings(
        epochs=3,
        batch_size=16,
        learning_rate=3e-3,
        cross_layers=1,
        dropout=0,
        precision="float32",
    )
    settings = baseline_settings(base, baseline)
    assert settings.schedule.weights() == (1.0, 0, 0, 0)
    lists = nearest_neighbors(np.eye(ENTITIES, dtype=np.float32))
    before = {n: t.clone() for n, t in tower._whole[0].state_dict().items()}
    with torch_settings_restored():
        training = MultimodalTraining(text, data, lists, settings, tower=tower)
        rates = {group["share"] for group in training.engine.optimizer.param_groups if group["params"]}
        assert rates == {0.1, 1.0}
        steps = list(training.run())
    n = training.steps_per_epoch
    assert sum(s.loss for s in steps[-n:]) < sum(s.loss for s in steps[:n])
    after = tower._whole[0].state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.startswith(("layers.1.", "layernorm.")) for name in moved)
    training.save_encoder(tmp_path / "encoder")
    read = EntityPredictionModel.load(tmp_path / "encoder", TextEncoder.load(str(tmp_path / "encoder/text")))
    context = data.gather(data.usable(settings.modality)[:5], settings.modality)
    training.predictor.eval()
    for found, expected in zip(read(context), training.predictor(context), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_are_those_of_the_papers_table() -> None:
    base = MultimodalSettings()
    found = {n: (s.architecture, s.modality) for n in BASELINES if (s := baseline_settings(base, n))}
    image, both = ("image", "image"), ("two-towers", "text+image")
    assert found == {
        "image": image,
        "vit": image,
        "beit": image,
        "clip-image": image,
        "two-towers": both,
        "clip": both,
        "albef": ("cross-attention", "text+image"),
    }


def test_a_baseline_sees_every_modality_unless_a_share_is_given() -> None:
    assert MultimodalSettings().modality_dropout == 0.3
    assert baseline_settings(MultimodalSettings(), "clip").modality_dropout == 0
    assert baseline_settings(MultimodalSettings(epochs=2), "albef").modality_dropout == 0
    assert baseline_settings(MultimodalSettings(modality_dropout=0.3), "clip").modality_dropout == 0.3
