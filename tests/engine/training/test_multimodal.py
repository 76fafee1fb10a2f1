"""The multi-modal training: what it begins with, what it is shown, and that it can be stopped anywhere."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.losses.settings import Schedule
from engine.models.lda import IMAGE_SHRINKAGE, TEXT_SHRINKAGE, discriminant
from engine.models.multimodal import BARE_TOKENS
from engine.models.text import TextEncoder
from engine.training import multimodal
from engine.training.contexts import Contexts, image_means
from engine.training.multimodal import MultimodalTraining
from engine.training.pairs import nearest_neighbors
from engine.training.settings import MultimodalSettings
from tests.support.contexts import random_contexts
from tests.support.encoders import random_encoder

ENTITIES = 9
SETTINGS = MultimodalSettings(
    epochs=2,
    batch_size=16,
    visual_layers=1,
    cross_layers=1,
    precision="float32",
    schedule=Schedule(clusters=3),
)


@pytest.fixture
def text() -> TextEncoder:
    return random_encoder("bert")


@pytest.fixture
def data(text: TextEncoder, tmp_path: Path) -> Contexts:
    return random_contexts(text, tmp_path, entities=ENTITIES)


def training(
    text: TextEncoder, data: Contexts, checkpoint: Path | None = None, **changes: object
) -> MultimodalTraining:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(ENTITIES, 4)).astype(np.float32)
    lists = nearest_neighbors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    settings = SETTINGS.model_copy(update=changes)
    return MultimodalTraining(text, data, lists, settings, checkpoint=checkpoint)


def test_an_entity_s_image_mean_is_that_of_its_distinct_images(data: Contexts) -> None:
    """Images come several times, and entities share some."""
    image_row = np.where(data.image_row < 0, -1, data.image_row % 11).astype(np.int32)
    found = image_means(data.features, image_row, data.entity_id, ENTITIES + 1)
    for entity in range(ENTITIES + 1):
        own = sorted(set(image_row[data.entity_id == entity].tolist()) - {-1})
        expected = data.features.gather(np.array(own, np.int64)).double().mean(dim=(0, 1)) if own else 0.0
        np.testing.assert_allclose(found[entity], expected, rtol=1e-6, atol=1e-7)
    assert not found[ENTITIES].any()


def text_means(text: TextEncoder, data: Contexts, rows: np.ndarray) -> torch.Tensor:
    """One sentence at a time, nothing padded."""
    found = []
    for row in rows:
        context = data.gather(np.array([row]), "text")
        with torch.no_grad():
            found.append(text.last.layer(context.states_BLD)[0].mean(dim=0))
    return torch.stack(found)


def test_the_summary_is_fitted_to_the_contexts_that_have_a_modality(text, data) -> None:
    means = text_means(text, data, told := np.flatnonzero(data.lengths > BARE_TOKENS))
    fitted: Any = training(text, data).predictor.encoder
    seen = np.flatnonzero(data.image_row >= 0)
    features = data.features.gather(data.image_row[seen])
    flat = features.flatten(0, 1)
    torch.testing.assert_close(fitted.patches.mean_C, flat.mean(dim=0))
    scaled = ((features - flat.mean(dim=0)) / (flat.std(dim=0) + 1e-3)).mean(dim=1)
    assert fitted.lda is not None
    for linear, rows, which, shrinkage in (
        (fitted.lda.text, means, told, TEXT_SHRINKAGE),
        (fitted.lda.image, scaled, seen, IMAGE_SHRINKAGE),
    ):
        found, centre = discriminant(
            rows, torch.from_numpy(data.entity_id[which]), linear.out_features, shrinkage
        )
        # Singular vectors have no sign of their own: the products of what is mapped have.
        ours, plain = linear(rows), ((rows.double() - centre) @ found.T).float()
        torch.testing.assert_close(ours @ ours.T, plain @ plain.T, rtol=1e-3, atol=1e-2)


def test_what_a_modality_leaves_out_is_not_looked_at(text, data) -> None:
    encoder: Any = training(text, data, modality="text").predictor.encoder
    assert not encoder.patches.mean_C.any()
    # Nor is what the modality leaves nothing of trained on: every sixth context has no words.
    assert training(text, data, modality="text").contexts == 50


def test_a_sample_to_be_fitted_to_holds_all_contexts_of_its_entities(text, data, monkeypatch) -> None:
    monkeypatch.setattr(multimodal, "FIT_CONTEXTS", 20)
    ours = training(text, data)
    entity = data.entity_id[ours._sampled()]
    assert len(entity) == 20
    usable = data.entity_id[data.usable("text+image")]
    whole = [e for e in set(entity.tolist()) if (entity == e).sum() == (usable == e).sum()]
    assert len(whole) >= len(set(entity.tolist())) - 1, "only the last entity drawn may be cut"


def test_some_contexts_of_both_modalities_are_shown_without_one_and_never_without_both(text, data) -> None:
    ours = training(text, data, modality_dropout=0.4)
    rows = data.usable("text+image")
    whole, n_text, n_image = data.gather(rows, "text+image"), 0, 0
    both = whole.has_image_B & (whole.lengths_B > BARE_TOKENS)
    for ours.step in range(30):
        shown = ours._shown(rows)
        told = shown.lengths_B > BARE_TOKENS
        assert (told | shown.has_image_B).all()
        assert torch.equal(told[~both], whole.lengths_B[~both] > BARE_TOKENS)
        assert torch.equal(shown.has_image_B[~both], whole.has_image_B[~both])
        n_text += int((both & ~told).sum())
        n_image += int((both & ~shown.has_image_B).sum())
    assert n_text / (30 * int(both.sum())) == pytest.approx(0.4, abs=0.05)
    assert n_image / (30 * int(both.sum())) == pytest.approx(0.4, abs=0.05)


def test_a_context_without_its_text_is_what_a_picture_alone_is(text, data) -> None:
    rows = data.usable("text+image")
    whole = data.gather(rows, "text+image")
    encoder = training(text, data).predictor.encoder.eval()
    every, none = torch.ones(len(rows), dtype=torch.bool), torch.zeros(len(rows), dtype=torch.bool)
    with torch.no_grad():
        for taken, modality in (((every, none), "image"), ((none, every), "text")):
            found = encoder(*data.without(whole, *taken))
            torch.testing.assert_close(found, encoder(*data.gather(rows, modality)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(clusters=3, refresh_pairs=1),
        Schedule(contrastive=False, clustering=False),
        Schedule(clusters=3, passes="separate", refresh_pairs=1),
    ],
    ids=["sum", "prediction", "separate"],
)
def test_a_resumed_run_ends_as_an_uninterrupted_one(text, data, tmp_path, schedule) -> None:
    begun = {name: tensor.clone() for name, tensor in text.model.state_dict().items()}
    whole = training(text, data, schedule=schedule)
    for _ in whole.run():
        pass
    text.model.load_state_dict(begun)
    first = training(text, data, schedule=schedule)
    for step in first.run():
        if step.step == first.steps_per_epoch + 1:  # in the second epoch, whose pairs were mined anew
            first.save(tmp_path / "checkpoint")
            break
    text.model.load_state_dict(begun)
    second = training(text, data, tmp_path / "checkpoint", schedule=schedule)
    for _ in second.run():
        pass
    np.testing.assert_allclose(second.losses, whole.losses, rtol=1e-5)
    assert len(whole.losses) == whole.total_steps > 3
    # Of the same objective: an epoch of separate passes ends with entity prediction.
    last = whole.steps_per_epoch if schedule.passes == "separate" else 2
    assert np.mean(whole.losses[-2:]) < np.mean(whole.losses[last - 2 : last])


def test_the_text_encoders_own_layer_learns_slowly_and_the_frozen_ones_not_at_all(text, data) -> None:
    fingerprint = text.lower_fingerprint()
    ours = training(text, data)
    before = {name: tensor.clone() for name, tensor in ours.predictor.state_dict().items()}
    for _ in ours.run():
        pass
    moved = {n: float((t - before[n]).abs().mean()) for n, t in ours.predictor.state_dict().items()}
    assert 0 < moved["encoder.last.layer.intermediate.dense.weight"] < moved["head.0.weight"]
    assert moved["encoder.patches.mean_C"] == 0, "standardisation is fitted, not learnt"
    assert text.lower_fingerprint() == fingerprint


def test_after_the_last_step_the_head_is_set_to_the_means_of_the_trained_states(text, data) -> None:
    begun = {name: tensor.clone() for name, tensor in text.model.state_dict().items()}
    trained = training(text, data, head="trained", epochs=1)
    heads = [copy.deepcopy(trained.predictor.head.state_dict())]
    for _ in trained.run():
        heads.append(copy.deepcopy(trained.predictor.head.state_dict()))
    text.model.load_state_dict(begun)
    ours = training(text, data, epochs=1)
    head = ours.predictor.head.state_dict()
    assert all(torch.equal(head[name], tensor) for name, tensor in heads[0].items()), "at random, by the seed"
    for step, expected in zip(ours.run(), heads[1:], strict=True):
        if step.step < ours.total_steps:
            torch.testing.assert_close(dict(ours.predictor.head.state_dict()), dict(expected))
    for name, tensor in trained.predictor.encoder.state_dict().items():
        torch.testing.assert_close(ours.predictor.encoder.state_dict()[name], tensor)
    predictor = trained.predictor.eval()
    with torch.no_grad():
        usable = data.usable("text+image")
        own = []
        for entity in range(ENTITIES):
            rows = usable[data.entity_id[usable] == entity]
            one_by_one = [
                predictor.encoder(*data.gather(rows[i : i + 1], "text+image")) for i in range(len(rows))
            ]
            own.append(torch.cat(one_by_one).mean(dim=0))
        predictor.head.set_to_means(torch.stack(own), torch.ones(ENTITIES, dtype=torch.bool))
    for name, tensor in predictor.head.state_dict().items():
        torch.testing.assert_close(ours.predictor.head.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)
