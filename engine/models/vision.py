"""Encode square images by a frozen vision backbone: a vector for each patch.

Two ways to patches. ``grid``: one pass over the whole image; the patches are the cells of the last feature
map, or the patch tokens of a transformer, averaged down to a coarse grid. ``crop`` (MESED, equation 3): the
image is cut into 6 x 6 pieces of 32 x 32 pixels, and each goes through the backbone by itself. A third,
``tokens``, keeps the whole input of the last block, for encoders that train this
(:mod:`engine.models.image_tower`).

Works without torchvision: the numbers of the preprocessing come out of the model's own
``preprocessor_config.json`` and are applied here.

Shape letters: B images, S pixels a side, P patches, C channels, H and W cells.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval
from transformers import (
    BeitModel,
    CLIPVisionModel,
    MobileNetV1Model,
    MobileNetV2Model,
    PretrainedConfig,
    ResNetModel,
    ViTModel,
)

from engine.errors import UserError
from engine.models.fingerprint import config_text
from engine.models.hub import NamedModel
from engine.models.image_tower import BlockInput, ImageTower, tokens_of
from engine.models.settings import Patches
from engine.models.text import fast_dtype

Tensor = torch.Tensor
CONVOLUTIONAL: dict[str, type] = {
    "resnet": ResNetModel,
    "mobilenet_v1": MobileNetV1Model,
    "mobilenet_v2": MobileNetV2Model,
}
"""Families whose last state is a feature map [B, C, H, W]."""

TRANSFORMERS: dict[str, type] = {
    "vit": ViTModel,
    "beit": BeitModel,
    "clip": CLIPVisionModel,
    "clip_vision_model": CLIPVisionModel,
}
"""Families whose last state is a token for the whole image and then one a patch, [B, 1 + P, C]."""

CROPS, CROP_SIDE = 6, 32
"""The paper's cut: 6 x 6 pieces of 32 x 32 pixels, out of 192 x 192."""

CPU_PIXELS = 4 * 224 * 224
"""Pixels of a pass on a CPU. The largest activation then stays below 32 MiB, up to which the C library keeps
freed memory; above, each one is mapped and unmapped by the kernel, a third of the time."""

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class Scaling:
    """The scaling of pixels into input: ``(pixel * factor - mean) / std`` a channel, at ``side`` pixels."""

    side: int
    factor: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class VisionBackbone:
    """A loaded backbone; see :meth:`load`."""

    def __init__(self, model: Any, scaling: Scaling, patches: Patches = "grid", grid: int = 7) -> None:
        kind = model.config.model_type
        if patches == "crop" and kind in TRANSFORMERS:
            raise UserError(
                f"--patches crop: a backbone of type {kind!r} takes images of one size only, not pieces of "
                f"{CROP_SIDE} pixels; use --patches grid, or one of {', '.join(CONVOLUTIONAL)}"
            )
        self.model = model.eval().requires_grad_(False)
        self.scaling, self.patches, self.grid = scaling, patches, grid
        self._convolutional = kind in CONVOLUTIONAL
        self._fingerprint = _digest(model, scaling)
        _fold_normalisation(model)
        self._below = BlockInput(model) if patches == "tokens" else None
        self.model.to(memory_format=torch.channels_last)
        self._device = torch.device("cpu")
        self._scale, self._shift = _row(scaling, self.input_side)
        blank = torch.zeros(1, self.side, self.side, 3, dtype=torch.uint8)
        self.n_patches, self.dim = (int(n) for n in self.encode(blank).shape[1:])

    @classmethod
    def load(
        cls, name: str, patches: Patches = "grid", grid: int = 7, role: str = "backbone"
    ) -> VisionBackbone:
        """Load from a model folder, local or in a bucket, or a hub name (:class:`NamedModel`).

        Args:
            name: a ResNet, MobileNet V1 or V2, ViT, BEiT or CLIP (a whole one, or its vision part).
            patches: "grid", "crop" or "tokens".
            grid: cells a side at most; a larger feature map is averaged down.
            role: the option that named it, for errors.

        Raises:
            UserError: there is no such model, it is of another family, or "crop" is asked of a transformer.
        """
        named = NamedModel.open(name, role)
        model = bare_model(named)
        return cls(model, read_scaling(named, named.config()), patches, grid)

    @property
    def side(self) -> int:
        """Pixels a side of the images that :meth:`encode` takes, S."""
        return CROPS * CROP_SIDE if self.patches == "crop" else self.scaling.side

    @property
    def input_side(self) -> int:
        """Pixels a side of what goes through the model in one piece."""
        return CROP_SIDE if self.patches == "crop" else self.scaling.side

    def fingerprint(self) -> str:
        """Return a digest of the weights and of all else that decides the output."""
        return self._fingerprint

    def to(self, device: torch.device) -> VisionBackbone:
        """Move the weights to a device."""
        self.model.to(device)
        self._scale, self._shift, self._device = self._scale.to(device), self._shift.to(device), device
        return self

    @torch.no_grad()  # not inference_mode: BEiT keeps an index of its positions, which its training then uses
    def encode(self, pixels_BSS3: Tensor) -> Tensor:
        """Return the patches' vectors, float32 [B, P, C], on the CPU, rows of the grid after one another.

        Args:
            pixels_BSS3: uint8, :attr:`side` pixels a side.
        """
        pieces = _cut(pixels_BSS3) if self.patches == "crop" else pixels_BSS3
        on_cpu = self._device.type == "cpu"
        step = max(1, CPU_PIXELS // self.input_side**2) if on_cpu else len(pieces)
        found = [self.cells(self.prepared(some)) for some in pieces.split(step)]
        cells_NPC = torch.cat(found).cpu()
        return cells_NPC.reshape(len(pixels_BSS3), -1, cells_NPC.shape[-1])

    def prepared(self, pixels_NSS3: Tensor) -> Tensor:
        """Return the model's input, float32 [N, 3, S, S], colours innermost in memory as in the pixels."""
        N, S = pixels_NSS3.shape[:2]
        rows = pixels_NSS3.to(self._device).reshape(N, S, 3 * S).float()
        return rows.mul_(self._scale).add_(self._shift).view(N, S, S, 3).permute(0, 3, 1, 2)

    def cells(self, input_N3SS: Tensor) -> Tensor:
        """Return what one pass yields: float32 [N, P, C], one cell for a piece of a cut image."""
        dtype = fast_dtype(self._device) if self._device.type == "cuda" else torch.float32
        with torch.autocast(self._device.type, dtype, enabled=dtype != torch.float32):
            if self._below is not None:
                state = tokens_of(self._below(input_N3SS)[0]).float()
            else:
                state = self.model(input_N3SS).last_hidden_state.float()
        if self._below is not None:
            return state.clamp(-_LARGEST, _LARGEST)
        if not self._convolutional:
            N, tokens, C = state.shape
            cells = int((tokens - 1) ** 0.5)
            state = state[:, 1:].transpose(1, 2).reshape(N, C, cells, cells)
        most = 1 if self.patches == "crop" else self.grid
        H, W = (min(most, n) for n in state.shape[2:])
        if tuple(state.shape[2:]) != (H, W):
            state = functional.adaptive_avg_pool2d(state, (H, W))
        # What is stored has 16 bits; beyond them a value would become infinite.
        return state.flatten(2).transpose(1, 2).clamp(-_LARGEST, _LARGEST)


def bare_model(named: NamedModel) -> Any:
    """Load a backbone without a head.

    Raises:
        UserError: it is of no family that is known here.
    """
    config = named.config()
    families = CONVOLUTIONAL | TRANSFORMERS
    if config.model_type not in families:
        raise UserError(f"{named.label}: of type {config.model_type!r}; known are {', '.join(families)}")
    # BEiT's pooling layer holds the normalisation of its mean, and is used by towers.
    without_pooling = config.model_type not in ("resnet", "beit", "clip", "clip_vision_model")
    bare: dict[str, Any] = {"add_pooling_layer": False} if without_pooling else {}
    return named.model(families[config.model_type], torch.float32, **bare)


def load_tower(name: str, fingerprint: str | None = None) -> ImageTower:
    """Load the last block of a backbone to be trained, or as it was saved.

    Args:
        name: as :meth:`VisionBackbone.load` takes it, or a folder that :meth:`ImageTower.save` wrote.
        fingerprint: of the backbone that made the features; None: not looked at.

    Raises:
        UserError: there is no such model, or it is another one than made the features.
    """
    named = NamedModel.open(name, "image features of")
    model = bare_model(named)
    if fingerprint is not None and _digest(model, read_scaling(named, named.config())) != fingerprint:
        raise UserError(
            f"{named.label}: its files have changed since the features were made; run "
            "`seedset image-features` again, or put the former files back"
        )
    return ImageTower(model)


def _cut(pixels_BSS3: Tensor) -> Tensor:
    """Return the 32 x 32 pieces of images, uint8 [B * 36, 32, 32, 3], row by row."""
    B = len(pixels_BSS3)
    cut = pixels_BSS3.reshape(B, CROPS, CROP_SIDE, CROPS, CROP_SIDE, 3).permute(0, 1, 3, 2, 4, 5)
    return cut.reshape(B * CROPS**2, CROP_SIDE, CROP_SIDE, 3)


def _row(scaling: Scaling, side: int) -> tuple[Tensor, Tensor]:
    """Return factor and addend of each value of a row of pixels, [3 * side] each.

    A row at a time, because three values at a time are too few for the machine's vector units.
    """
    std = torch.tensor(scaling.std)
    return (scaling.factor / std).repeat(side), (-torch.tensor(scaling.mean) / std).repeat(side)


def _fold_normalisation(model: nn.Module) -> None:
    """Multiply each frozen batch normalisation into the convolution before it: the same, a tenth faster."""
    for module in model.modules():
        convolution = getattr(module, "convolution", None)
        normalisation = getattr(module, "normalization", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
            module.convolution = fuse_conv_bn_eval(convolution, normalisation)
            module.normalization = nn.Identity()


def _digest(model: Any, scaling: Scaling) -> str:
    digest = hashlib.sha256(config_text(model.config).encode())
    digest.update(repr(scaling).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()


def read_scaling(named: NamedModel, config: PretrainedConfig) -> Scaling:
    """Read ``preprocessor_config.json`` beside a model.

    Raises:
        UserError: it is not there or lacks mean and deviation, or the model does not take RGB.
    """
    vision = getattr(config, "vision_config", config)
    if getattr(vision, "num_channels", 3) != 3:
        raise UserError(f"{named.label}: takes {vision.num_channels} channels; images here have three")
    try:
        given = json.loads(named.file("preprocessor_config.json").read_bytes())
        factor = float(given.get("rescale_factor", 1 / 255)) if given.get("do_rescale", True) else 1.0
        plain = not given.get("do_normalize", True)
        mean = (0.0, 0.0, 0.0) if plain else _triple(given["image_mean"])
        std = (1.0, 1.0, 1.0) if plain else _triple(given["image_std"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{named.label}: no preprocessor_config.json that tells image_mean and image_std ({error}); "
            "without them its pixels would be scaled wrongly"
        ) from None
    # A transformer's positions are learnt for one size, and only its configuration is sure to name it.
    fixed = config.model_type in TRANSFORMERS
    side = None if fixed else _side(given.get("crop_size")) or _side(given.get("size"))
    return Scaling(side or int(getattr(vision, "image_size", 224)), factor, mean, std)


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue


def _side(size: Any) -> int | None:
    """Return the pixels of a size as preprocessing files write it: a number, or one by name."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    return int(size) if size else None
