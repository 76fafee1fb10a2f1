"""Settings as a run's name is made from them: a change would train again what is trained already."""

from __future__ import annotations

import math

import pytest

from engine.models.settings import EncoderSizes, MultimodalConfig
from engine.training.settings import (
    EncoderSettings,
    LmSettings,
    MultimodalSettings,
    named_settings,
    rate_by_size,
)


def test_the_text_encoders_settings_are_written_as_ever() -> None:
    assert EncoderSettings(smoothing=1e-5).model_dump_json() == (
        '{"epochs":12,"batch_size":256,"learning_rate":0.002,"weight_decay":0.1,"clip":1.0,"precision":"auto",'
        '"seed":13,"smoothing":0.00001}'
    )


def test_the_multimodal_encoders_settings_are_written_as_ever_but_for_the_head() -> None:
    """With the head that was trained; the other one is named, and makes another run."""
    assert MultimodalSettings(head="trained").model_dump_json(by_alias=True) == (
        '{"epochs":8,"batch_size":64,"learning_rate":0.0005,"weight_decay":0.1,"clip":1.0,"precision":"auto",'
        '"seed":13,"text_share":0.1,"modality":"text+image","hidden":0.3,"architecture":"multiexpan",'
        '"visual_layers":3,"cross_layers":3,'
        '"inner":2,"dropout":0.2,"logit_dropout":0.0,"summary":true,"identity":true,"schedule":{'
        '"prediction":true,"contrastive":true,"clustering":true,"distillation":true,"smoothing":0.075,'
        '"clusters":16,"passes":"sum","refresh_pairs":0,'
        '"contrast":{"temperature":0.5,"prior":0.05,"concentration":1.0}}}'
    )


def test_a_nearest_mean_head_is_in_a_runs_name() -> None:
    assert MultimodalSettings().head == "nearest-mean"
    assert '"identity":true,"head":"nearest-mean","schedule":' in MultimodalSettings().model_dump_json()


def test_a_language_models_settings_are_named_as_ever() -> None:
    assert named_settings(LmSettings()) == (
        '{"epochs":1,"batch_size":16,"learning_rate":0.00001,"weight_decay":0.0001,"beta2":0.999,"clip":1.0,'
        '"warmup":0.03,"precision":"auto","seed":13}'
    )


def test_every_setting_of_a_language_model_is_in_its_name() -> None:
    changed = LmSettings(
        held_out_blocks=1,
        lora=True,
        lora_rank=1,
        lora_alpha=1,
        lora_targets="q",
        quantize="4bit",
        keep_adapter=True,
    )
    assert named_settings(changed).count(":") == len(LmSettings.model_fields)


def test_the_rate_falls_evenly_by_logarithms_from_small_models_to_the_papers() -> None:
    assert [rate_by_size(n) for n in (1, 7_000_000, 135_000_000)] == [2e-4] * 3
    assert [rate_by_size(n) for n in (6_738_415_616, 70_000_000_000)] == [1e-5] * 2
    middle = math.sqrt(135e6 * 6.7e9)
    assert rate_by_size(round(middle)) == pytest.approx(math.sqrt(2e-4 * 1e-5), rel=0.02)
    assert rate_by_size(1_000_000_000) == 4.3e-5


def test_sizes_of_the_multimodal_encoder_have_one_default() -> None:
    settings = MultimodalSettings()
    config = MultimodalConfig(n_patches=2, vision_dim=3)
    assert settings.config(2, 3) == config
    for name, size in EncoderSizes.model_fields.items():
        assert getattr(config, name) == getattr(settings, name) == size.default
