"""The multi-modal encoder against a plain computation, one context at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from engine.errors import FormatError
from engine.models.multimodal import (
    CONFIG,
    WEIGHTS,
    EntityPredictionModel,
    MultimodalEncoder,
    PatchProjection,
    PredictionHead,
)
from engine.models.settings import MultimodalConfig
from engine.models.text import TextEncoder
from tests.support.encoders import draw_weights, random_encoder
from tests.support.sentences import random_rows

Tensor = torch.Tensor

PATCHES, CHANNELS, ENTITIES = 4, 10, 7


class Batch(NamedTuple):
    """The arguments of the encoder: both modalities, a picture alone, a sentence alone, neither, both."""

    states: Tensor
    lengths: Tensor
    mask: Tensor
    features: Tensor
    seen: Tensor


def batch_for(text: TextEncoder) -> Batch:
    rows = random_rows(5, ENTITIES, seed=3)
    ids, lengths = rows.padded_ids(torch.arange(5).numpy())
    mask = torch.from_numpy(rows.mask_index)
    for bare in (1, 3):
        ids[bare, :3] = torch.tensor([101, 103, 102])
        ids[bare, 3:] = 0
        lengths[bare], mask[bare] = 3, 1
    torch.manual_seed(1)
    features = torch.randn(5, PATCHES, CHANNELS)
    seen = torch.tensor([True, True, False, False, True])
    return Batch(text.lower_states(ids, lengths), lengths, mask, features, seen)


def config(ours: bool) -> MultimodalConfig:
    return MultimodalConfig(
        n_patches=PATCHES,
        vision_dim=CHANNELS,
        visual_layers=2,
        cross_layers=2,
        head_dim=16,
        summary=ours,
        identity=ours,
    )


def paper_way(text: TextEncoder) -> MultimodalEncoder:
    encoder = MultimodalEncoder(text.last, config(ours=False))
    draw_weights(encoder)
    encoder.patches.fit(torch.randn(6, PATCHES, CHANNELS) * 3 + 1)
    return encoder.eval()


def patches_by_hand(encoder: MultimodalEncoder, features_PC: Tensor) -> Tensor:
    """Equation 3: Linear -> LayerNorm -> GELU of standardised features, and positions."""
    projection, norm = encoder.patches.project, encoder.patches.LayerNorm
    scaled = (features_PC - encoder.patches.mean_C) * encoder.patches.scale_C
    raw = scaled @ projection.weight.T + projection.bias
    centred = raw - raw.mean(dim=1, keepdim=True)
    even = centred / (centred.square().mean(dim=1, keepdim=True) + norm.eps).sqrt()
    return F.gelu(even * norm.weight + norm.bias) + encoder.patches.position_PD


def by_hand(encoder: MultimodalEncoder, batch: Batch, i: int) -> Tensor:
    """One context by itself, through the library's own layers: nothing is padded, nothing masked."""
    states = encoder.last.layer(batch.states[i : i + 1, : batch.lengths[i]])
    if batch.seen[i]:
        image = patches_by_hand(encoder, batch.features[i])[None]
        for layer in encoder.visual:
            image = layer(image)
        states = torch.cat([states, image], dim=1)
    for layer in encoder.cross:
        states = layer(states)
    return states[0, batch.mask[i]]


def test_a_batch_equals_each_context_by_itself_with_absent_modalities_left_out() -> None:
    text = random_encoder("bert")
    encoder, batch = paper_way(text), batch_for(text)
    with torch.no_grad():
        found = encoder(*batch)
        expected = torch.stack([by_hand(encoder, batch, i) for i in range(len(batch.lengths))])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert len({tuple(row) for row in found.round(decimals=2).tolist()}) == 5


@pytest.mark.parametrize("ours", [False, True])
def test_what_lies_beyond_a_sentence_or_in_an_unseen_picture_does_not_matter(ours: bool) -> None:
    text = random_encoder("bert")
    encoder, batch = MultimodalEncoder(text.last, config(ours)), batch_for(text)
    draw_weights(encoder)
    encoder.eval()
    spoilt = Batch(*(tensor.clone() for tensor in batch))
    for i, length in enumerate(batch.lengths):
        spoilt.states[i, length:] = 1e3
    spoilt.features[~batch.seen] = 1e3
    with torch.no_grad():
        torch.testing.assert_close(encoder(*spoilt), encoder(*batch))
        spoilt.features[0] = 0
        assert (encoder(*spoilt)[0] - encoder(*batch)[0]).abs().max() > 1e-3


def even(states: Tensor) -> Tensor:
    centred = states - states.mean()
    return centred / centred.square().mean().sqrt()


def test_before_the_first_step_the_state_is_what_was_read_beside_what_was_seen() -> None:
    text = random_encoder("bert")
    torch.manual_seed(2)
    encoder, batch = MultimodalEncoder(text.last, config(ours=True)).eval(), batch_for(text)
    with torch.no_grad():
        found = encoder(*batch)
        assert encoder.lda is not None
        half = encoder.dim - encoder.dim // 2
        for i in range(len(batch.lengths)):
            total = torch.zeros(encoder.dim)
            if batch.lengths[i] > 3:
                read = encoder.last.layer(batch.states[i : i + 1, : batch.lengths[i]])[0]
                total[:half] = even(encoder.lda.text(read.mean(dim=0)))
            if batch.seen[i]:
                scaled = (batch.features[i] - encoder.patches.mean_C) * encoder.patches.scale_C
                total[half:] = even(encoder.lda.image(scaled.mean(dim=0)))
            # A layer that is the identity leaves its LayerNorms.
            expected = even(total) if total.any() else total
            torch.testing.assert_close(found[i], expected, rtol=1e-3, atol=1e-3)


def test_gradients_reach_all_that_is_new_and_the_last_text_layer_and_nothing_below() -> None:
    text = random_encoder("bert")
    predictor = EntityPredictionModel(MultimodalEncoder(text.last, config(ours=False)), ENTITIES)
    draw_weights(predictor)
    _, logits = predictor(batch_for(text))
    logits.square().sum().backward()
    assert logits.shape == (5, ENTITIES)
    parts = (
        "encoder.last.",
        "encoder.patches.project.",
        "encoder.patches.position_PD",
        "encoder.visual.0.",
        "encoder.visual.1.",
        "encoder.cross.0.",
        "encoder.cross.1.",
        "head.",
    )
    for part in parts:
        # key.bias is left out: softmax drops what is the same for every key.
        own = [p for n, p in predictor.named_parameters() if n.startswith(part) and "key.bias" not in n]
        assert own, part
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in own), part
    reached = {n for n, p in text.model.named_parameters() if p.grad is not None}
    assert reached
    assert all(name.startswith("encoder.layer.2.") for name in reached)


def test_in_training_the_new_layers_have_dropout_and_the_text_layer_has_none() -> None:
    text = random_encoder("bert")
    encoder, batch = paper_way(text).train(), batch_for(text)
    assert encoder.visual[0].training
    assert not encoder.last.layer.training
    with torch.no_grad():
        assert (encoder(*batch) - encoder(*batch)).abs().max() > 1e-3


def test_saving_and_loading_keeps_states_and_logits(tmp_path: Path) -> None:
    text = random_encoder("bert")
    predictor = EntityPredictionModel(paper_way(text), ENTITIES)
    batch = batch_for(text)
    assert predictor.save(tmp_path) == CONFIG
    again = EntityPredictionModel.load(tmp_path, random_encoder("bert"))  # whose last layer is another
    assert again.encoder.config == predictor.encoder.config
    with torch.no_grad():
        for found, expected in zip(again(batch), predictor.eval()(batch), strict=True):
            torch.testing.assert_close(found, expected)


def test_weights_of_earlier_files_are_read(tmp_path: Path) -> None:
    text = random_encoder("bert")
    model = EntityPredictionModel(MultimodalEncoder(text.last, config(ours=True)), ENTITIES)
    model.save(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    earlier = {name.replace("encoder.lda.", "encoder.summary."): tensor for name, tensor in weights.items()}
    assert earlier.keys() != weights.keys()
    save_file(earlier, tmp_path / WEIGHTS)
    again = EntityPredictionModel.load(tmp_path, random_encoder("bert")).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in weights.items())


def test_a_folder_that_holds_none_or_one_of_another_text_encoder_is_named(tmp_path: Path) -> None:
    text = random_encoder("bert")
    with pytest.raises(FormatError, match=r"nowhere: no multimodal\.json"):
        EntityPredictionModel.load(tmp_path / "nowhere", text)
    EntityPredictionModel(paper_way(text), ENTITIES).save(tmp_path)
    other = random_encoder("bert", dim=32)
    with pytest.raises(FormatError, match="another text encoder"):
        EntityPredictionModel.load(tmp_path, other)


def test_fitted_features_are_standardised_each_by_its_own_mean_and_deviation() -> None:
    torch.manual_seed(0)
    projection = PatchProjection(config(ours=True), 16)
    scale, shift = torch.linspace(1, 5, CHANNELS), torch.linspace(-3, 3, CHANNELS)
    features = torch.randn(50, PATCHES, CHANNELS) * scale + shift
    projection.fit(features)
    flat = ((features - projection.mean_C) * projection.scale_C).flatten(0, 1)
    torch.testing.assert_close(flat.mean(dim=0), torch.zeros(CHANNELS), rtol=0, atol=1e-5)
    torch.testing.assert_close(flat.std(dim=0), torch.ones(CHANNELS), rtol=0, atol=2e-3)


def test_a_feature_that_never_changes_stays_finite() -> None:
    projection = PatchProjection(config(ours=True), 16).eval()
    projection.fit(torch.ones(3, PATCHES, CHANNELS))
    assert projection(torch.ones(2, PATCHES, CHANNELS)).isfinite().all()


def gelu(x: float) -> float:
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_a_nearest_mean_head_is_the_plain_computation() -> None:
    """One state and one entity at a time, out of the standard library; the last entity has no states."""
    rng = np.random.default_rng(5)
    means, states = rng.normal(2, 1, (5, 6)), rng.normal(2, 1, (4, 6))
    means[4] = 0
    present = means[:4]
    head = PredictionHead(6, 5, dropout=0.2, logit_dropout=0.2).eval()
    draw_weights(head)
    head.set_to_means(torch.from_numpy(means).float(), torch.arange(5) < 4)
    found = head(torch.from_numpy(states).float()).detach()

    def features(x: np.ndarray) -> np.ndarray:
        x = x - present.mean(axis=0)
        x = (x - x.mean()) / math.sqrt(x.var() + 1e-5)
        return np.array([gelu(float(v) + 2) for v in x])

    own = [features(m) for m in present]
    centre = np.mean(own, axis=0)
    size = np.mean([np.linalg.norm(m - centre) for m in own])
    for i, x in enumerate(states):
        for e, m in enumerate(own):
            alike = (features(x) - centre) @ (m - centre) / np.linalg.norm(m - centre)
            assert float(found[i, e]) == pytest.approx(10 / size * alike, abs=1e-3)
    assert not found[:, 4].any()


def test_a_nearest_mean_head_predicts_the_entity_whose_mean_is_nearest() -> None:
    rng = np.random.default_rng(6)
    means = rng.normal(size=(20, 32))
    states = np.repeat(means, 5, axis=0) + 0.5 * rng.normal(size=(100, 32))
    nearest = np.linalg.norm(states[:, None] - means, axis=2).argmin(axis=1)
    head = PredictionHead(32, 20, dropout=0.2).eval()
    head.set_to_means(torch.from_numpy(means).float(), torch.ones(20, dtype=torch.bool))
    predicted = head(torch.from_numpy(states).float()).argmax(dim=1).numpy()
    assert (predicted == nearest).mean() >= 0.95


@pytest.mark.parametrize("present", [1, 3])
def test_a_nearest_mean_head_of_means_that_are_all_the_same_predicts_nothing(present: int) -> None:
    head = PredictionHead(6, 4, dropout=0.2).eval()
    head.set_to_means(torch.ones(4, 6).cumsum(dim=1), torch.arange(4) < present)
    assert not head(torch.randn(5, 6)).any()
