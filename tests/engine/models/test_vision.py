import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
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
from engine.models.vision import VisionBackbone

REAL = Path(__file__).parents[4] / "shared" / "models" / "mobilenet-v1-075"
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
SEES: dict[str, Any] = {"image_size": 64, "patch_size": 16}


def models() -> dict[str, PreTrainedModel]:
    torch.manual_seed(0)
    clip = CLIPConfig(
        vision_config=SMALL | SEES,
        text_config=SMALL | {"vocab_size": 50, "bos_token_id": 0, "eos_token_id": 1},
    )
    return {
        "resnet": ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])),
        "mobilenet_v1": MobileNetV1Model(MobileNetV1Config(depth_multiplier=0.25, image_size=64)),
        "mobilenet_v2": MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25, image_size=64)),
        "vit": ViTModel(ViTConfig(**SMALL, **SEES)),
        "clip": CLIPModel(clip),
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A small model of each family, with normalisations that have seen something."""
    found = {}
    for name, model in models().items():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
        found[name] = str(save(model, tmp_path_factory.mktemp(name)))
    return found


def save(model: PreTrainedModel, folder: Path, **settings: Any) -> Path:
    model.save_pretrained(folder)
    given = {"image_mean": MEAN, "image_std": STD, "size": {"height": 64, "width": 64}} | settings
    (folder / "preprocessor_config.json").write_text(json.dumps(given))
    return folder


def pixels(n: int, side: int) -> torch.Tensor:
    drawn = torch.randint(0, 256, (n, side, side, 3), generator=torch.Generator().manual_seed(1))
    return drawn.to(torch.uint8)


@cache
def plain_model(folder: str) -> Any:
    model = AutoModel.from_pretrained(folder).eval()
    return getattr(model, "vision_model", model)


def plain_states(folder: str, pixels_BSS3: torch.Tensor) -> torch.Tensor:
    """The library's own model on pixels scaled the slow way, unfolded and in one piece."""
    model = plain_model(folder)
    scaled = (pixels_BSS3 / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        found: torch.Tensor = model(scaled.permute(0, 3, 1, 2).contiguous()).last_hidden_state
    return found


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v1", "mobilenet_v2", "vit", "clip"])
@pytest.mark.parametrize("grid", [7, 2])
def test_the_grid_is_the_last_state_averaged_down(folders: dict[str, str], family: str, grid: int) -> None:
    backbone = VisionBackbone.load(folders[family], grid=grid)
    assert backbone.side == 64
    given = pixels(5, 64)
    state = plain_states(folders[family], given)
    if state.dim() == 3:  # tokens: the first stands for the whole picture
        state = state[:, 1:].reshape(5, 4, 4, -1).permute(0, 3, 1, 2)
    if state.shape[2] > grid:
        state = functional.adaptive_avg_pool2d(state, grid)
    expected = torch.stack(
        [state[:, :, i, j] for i in range(state.shape[2]) for j in range(state.shape[3])], 1
    )
    found = backbone.encode(given)
    assert found.shape == (5, backbone.n_patches, backbone.dim)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", ["resnet", "mobilenet_v1"])
def test_a_crop_is_the_mean_of_a_piece_by_itself(folders: dict[str, str], family: str) -> None:
    backbone = VisionBackbone.load(folders[family], patches="crop")
    assert (backbone.side, backbone.n_patches) == (192, 36)
    given = pixels(3, 192)
    found = backbone.encode(given)
    for i in range(6):
        for j in range(6):
            piece = given[:, 32 * i : 32 * i + 32, 32 * j : 32 * j + 32]
            expected = plain_states(folders[family], piece).mean((2, 3))
            torch.testing.assert_close(found[:, 6 * i + j], expected, atol=2e-5, rtol=1e-4)


def test_pictures_do_not_depend_on_those_beside_them(folders: dict[str, str]) -> None:
    backbone = VisionBackbone.load(folders["mobilenet_v1"])
    given = pixels(120, 64)  # more than a pass takes
    torch.testing.assert_close(backbone.encode(given)[100:101], backbone.encode(given[100:101]))


def test_the_fingerprint_is_of_weights_and_scaling(folders: dict[str, str], tmp_path: Path) -> None:
    first = VisionBackbone.load(folders["resnet"])
    assert VisionBackbone.load(folders["resnet"], grid=3).fingerprint() == first.fingerprint()
    model = AutoModel.from_pretrained(folders["resnet"])
    same = save(model, tmp_path / "same")
    assert VisionBackbone.load(str(same)).fingerprint() == first.fingerprint()
    other = save(model, tmp_path / "other", image_mean=[0.0, 0.0, 0.0])
    larger = save(model, tmp_path / "larger", size={"shortest_edge": 96})
    with torch.no_grad():
        next(model.parameters()).add_(1)
    trained = save(model, tmp_path / "trained")
    all_of_them = {VisionBackbone.load(str(f)).fingerprint() for f in (same, other, larger, trained)}
    assert len(all_of_them) == 4


@pytest.mark.parametrize(
    ("given", "side"),
    [
        ({"size": 48}, 48),
        ({"size": {"shortest_edge": 80}, "crop_size": {"height": 48, "width": 48}}, 48),
        ({"size": {"shortest_edge": 48}}, 48),
        ({"size": None}, 224),
    ],
)
def test_the_size_is_the_preprocessors(
    folders: dict[str, str], tmp_path: Path, given: dict[str, Any], side: int
) -> None:
    folder = save(AutoModel.from_pretrained(folders["resnet"]), tmp_path / "m", **given)
    assert VisionBackbone.load(str(folder)).side == side


def test_scaling_can_be_switched_off(folders: dict[str, str], tmp_path: Path) -> None:
    model = AutoModel.from_pretrained(folders["resnet"])
    folder = save(model, tmp_path / "m", do_normalize=False, do_rescale=False)
    given = pixels(2, 64)
    found = VisionBackbone.load(str(folder)).prepared(given)
    torch.testing.assert_close(found, given.permute(0, 3, 1, 2).float())


def test_mistakes_say_what_is_known(folders: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="of type 'bert'; known are resnet, mobilenet_v1, mobilenet_v2, vit, beit, clip"
    ):
        VisionBackbone.load(str(save(BertModel(BertConfig(vocab_size=9, **SMALL)), tmp_path / "bert")))
    with pytest.raises(UserError, match="type 'vit' takes images of one size only"):
        VisionBackbone.load(folders["vit"], patches="crop")
    with pytest.raises(UserError, match="cannot be loaded"):
        VisionBackbone.load(str(tmp_path))
    grey = ResNetConfig(num_channels=1, embedding_size=8, hidden_sizes=[8], depths=[1])
    with pytest.raises(UserError, match="takes 1 channels"):
        VisionBackbone.load(str(save(ResNetModel(grey), tmp_path / "grey")))
    bare = save(AutoModel.from_pretrained(folders["resnet"]), tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    with pytest.raises(UserError, match=r"no preprocessor_config\.json that tells image_mean"):
        VisionBackbone.load(str(bare))


@pytest.mark.skipif(not REAL.exists(), reason="../shared/models is not there")
def test_a_trained_mobilenet_gives_a_grid_of_seven() -> None:
    backbone = VisionBackbone.load(str(REAL))
    assert (backbone.side, backbone.n_patches, backbone.dim) == (224, 49, 768)
    flat = backbone.encode(torch.full((1, 224, 224, 3), 127, dtype=torch.uint8))
    drawn = backbone.encode(pixels(1, 224))
    assert (flat - drawn).abs().mean() > 0.01
