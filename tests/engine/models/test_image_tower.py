"""The last block of a backbone on what enters it gives what the whole model gives, and alone it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BeitConfig,
    BeitModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    MobileNetV1Config,
    MobileNetV1Model,
    MobileNetV2Config,
    MobileNetV2Model,
    PreTrainedModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTModel,
)

from engine.errors import UserError
from engine.models.image_tower import ImageTower
from engine.models.vision import VisionBackbone, load_tower
from tests.support.encoders import draw_weights

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
MODELS: dict[str, Any] = {
    "vit": lambda: ViTModel(ViTConfig(**SIZES), add_pooling_layer=False),
    "beit": lambda: BeitModel(
        BeitConfig(**SIZES, use_mean_pooling=True, use_relative_position_bias=True, layer_norm_eps=1e-6)
    ),
    "beit, shared": lambda: BeitModel(
        BeitConfig(**SIZES, use_mean_pooling=False, use_shared_relative_position_bias=True)
    ),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(**SIZES)),
    "resnet": lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2])),
    "mobilenet_v1": lambda: MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25)),
    "mobilenet_v2": lambda: MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25)),
}


def saved(family: str, folder: Path) -> tuple[PreTrainedModel, str]:
    """A small random model of a family, and its folder."""
    torch.manual_seed(0)
    model = MODELS[family]().eval()
    draw_weights(model, 0.1)
    model.save_pretrained(folder)
    given = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return model, str(folder)


def pixels(n: int = 3) -> torch.Tensor:
    drawn = torch.randint(0, 256, (n, 32, 32, 3), generator=torch.Generator().manual_seed(1))
    return drawn.to(torch.uint8)


def whole(family: str, model: Any) -> torch.Tensor:
    """The vector of an image as the model's own forward pass makes it, all blocks in one."""
    with torch.no_grad():
        found = model((pixels() / 255 - 0.5).permute(0, 3, 1, 2) / 0.5)
    if family in ("beit", "clip"):
        return found.pooler_output
    states = found.last_hidden_state
    return states.mean((2, 3)) if states.ndim == 4 else states[:, 0]


@pytest.mark.parametrize("family", MODELS)
def test_lower_blocks_and_then_the_last_are_the_whole_model(family: str, tmp_path: Path) -> None:
    model, folder = saved(family, tmp_path)
    backbone = VisionBackbone.load(folder, "tokens")
    kept = backbone.encode(pixels())
    tower = load_tower(folder, backbone.fingerprint())
    assert kept.shape == (3, backbone.n_patches, tower.vision_dim)
    torch.testing.assert_close(tower(kept).detach(), whole(family, model), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("family", ["vit", "mobilenet_v1"])
def test_the_last_block_alone_learns_and_is_saved_with_the_rest(family: str, tmp_path: Path) -> None:
    model, folder = saved(family, tmp_path)
    kept = VisionBackbone.load(folder, "tokens").encode(pixels())
    tower = load_tower(folder).train()
    torch.testing.assert_close(tower(kept), tower(kept))  # without dropout
    tower(kept).square().mean().backward()
    with torch.no_grad():
        for parameter in tower.parameters():
            assert parameter.grad is not None
            parameter.sub_(parameter.grad)
    tower.save(tmp_path / "after")
    again = load_tower(str(tmp_path / "after"))
    torch.testing.assert_close(again(kept), tower(kept))
    before, after = model.state_dict(), again._whole[0].state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    last = {"vit": ("layers.1.", "layernorm."), "mobilenet_v1": ("layer.24.", "layer.25.")}[family]
    assert changed
    assert all(name.startswith(last) for name in changed)


def test_another_model_than_made_the_features_is_refused(tmp_path: Path) -> None:
    _, folder = saved("vit", tmp_path)
    with pytest.raises(UserError, match=r"changed since the features were made.*image-features"):
        load_tower(folder, "another")


def test_a_towers_model_runs_as_before(tmp_path: Path) -> None:
    model, _ = saved("vit", tmp_path)
    before = whole("vit", model)
    ImageTower(model)
    torch.testing.assert_close(whole("vit", model), before)
