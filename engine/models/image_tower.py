"""Split a vision backbone in two: frozen lower blocks, and the last block, which learns.

What MESED's vision and vision-language baselines need (section "Experiment Setup"): ViT, BEiT and CLIP's
image encoder are further trained by entity prediction. As with the text encoder, the lower blocks run once
an image (``seedset image-features --patches tokens`` keeps the input of the last block), and the last block
alone runs in training, with the normalisation after it. The paper does not say how the tokens of an image
become one vector; each family's own way is taken: the token of the whole image (ViT, CLIP), the mean of the
patches where the model was made for it (BEiT), the mean of all cells (ResNet, MobileNet).

Dropout is left out, as for the text encoder: what was cached had none. A batch normalisation inside the block
keeps the statistics that it came with.

Shape letters: B images, T tokens or cells, C dimensions of a token below the block, D of one above it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn

Tensor = torch.Tensor


@dataclass(frozen=True)
class LastBlock:
    """A family's last block: where it begins, what it is made of, and how its tokens become one vector."""

    modules: tuple[str, ...]
    """Paths of the modules that run one after the other; the input of the first is what is kept."""
    norm: str | None
    """Path of the normalisation after them: of a token, or of the mean of the patches."""
    pooled: Literal["first", "patches", "cells"]


def _bare(path: str) -> Callable[[Any], LastBlock]:
    return lambda model: LastBlock((path,), None, "cells")


def _beit(model: Any) -> LastBlock:
    if model.config.use_mean_pooling:
        return LastBlock(("layers.-1",), "pooler.layernorm", "patches")
    return LastBlock(("layers.-1",), "layernorm", "first")


LAST_BLOCKS: dict[str, Callable[[Any], LastBlock]] = {
    "vit": lambda model: LastBlock(("layers.-1",), "layernorm", "first"),
    "beit": _beit,
    "clip_vision_model": lambda model: LastBlock(("encoder.layers.-1",), "post_layernorm", "first"),
    "resnet": _bare("encoder.stages.-1.layers.-1"),
    "mobilenet_v1": lambda model: LastBlock(("layer.-2", "layer.-1"), None, "cells"),
    "mobilenet_v2": lambda model: LastBlock(("layer.-1", "conv_1x1"), None, "cells"),
}
"""The last block of each family by its ``model_type``."""


def module_at(model: nn.Module, path: str) -> nn.Module:
    """Return the module at a path in which -1 is the last of a list."""
    found: Any = model
    for step in path.split("."):
        found = found[int(step)] if step.lstrip("-").isdigit() else getattr(found, step)
    return cast(nn.Module, found)


class BlockInput:
    """The input of a model's last block, taken while the whole model runs.

    Args:
        model: of one of :data:`LAST_BLOCKS`.
    """

    def __init__(self, model: nn.Module) -> None:
        kind = str(cast(Any, model).config.model_type)
        first = module_at(model, LAST_BLOCKS[kind](model).modules[0])
        self._model, self._first = model, first

    def __call__(self, pixels_B3SS: Tensor) -> tuple[Tensor, tuple[Any, ...], dict[str, Any]]:
        """Return the states [B, T, C], or a map [B, C, H, W], and the block's other arguments."""
        kept: list[tuple[Tensor, tuple[Any, ...], dict[str, Any]]] = []

        def keep(module: nn.Module, positional: tuple[Any, ...], named: dict[str, Any]) -> None:
            kept.append((positional[0], positional[1:], named))

        handle = self._first.register_forward_pre_hook(keep, with_kwargs=True)
        try:
            self._model(pixels_B3SS)
        finally:
            handle.remove()
        return kept[0]


def tokens_of(states: Tensor) -> Tensor:
    """Return states as tokens, [B, T, C]; of a map [B, C, H, W] the cells, row by row."""
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


class ImageTower(nn.Module):
    """The last block of a backbone, on what is kept of an image.

    Holds the block's own modules, so that training it trains the model's. The rest of the model is held
    beside them, to be saved with it.

    Args:
        model: of one of :data:`LAST_BLOCKS`, whole.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        about = LAST_BLOCKS[model.config.model_type](model)
        self.block = nn.ModuleList(module_at(model, path) for path in about.modules)
        self.norm = module_at(model, about.norm) if about.norm else nn.Identity()
        self._pooled = about.pooled
        model.eval().requires_grad_(False)
        self._whole = (model,)
        side = int(getattr(model.config, "image_size", 224))
        with torch.no_grad():
            given = BlockInput(model)(torch.zeros(1, 3, side, side))
        states, self._positional, self._named = given
        self._is_map = states.ndim == 4
        self.vision_dim = int(tokens_of(states).shape[2])
        with torch.no_grad():
            self.dim = int(self.tokens(tokens_of(states)).shape[2])
        self.requires_grad_(True)

    @property
    def family(self) -> str:
        """The ``model_type`` of the backbone."""
        return str(self._whole[0].config.model_type)

    def tokens(self, kept_BTC: Tensor) -> Tensor:
        """Return every token above the block, normalised, [B, T, D]."""
        normed: Tensor = self.norm(self._above(kept_BTC))
        return normed

    def _above(self, kept_BTC: Tensor) -> Tensor:
        """Return every token above the block as it leaves it, [B, T, D]."""
        states = kept_BTC
        if self._is_map:
            side = int(kept_BTC.shape[1] ** 0.5)
            states = kept_BTC.transpose(1, 2).unflatten(2, (side, side))
        given = [self._moved(one, states.device) for one in self._positional]
        named = {name: self._moved(one, states.device) for name, one in self._named.items()}
        for number, module in enumerate(self.block):
            states = module(states, *given, **named) if number == 0 else module(states)
        return tokens_of(states)

    def forward(self, kept_BTC: Tensor) -> Tensor:
        """Return one vector an image, [B, D]."""
        tokens_BTD = self._above(kept_BTC)
        if self._pooled == "first":
            pooled_BD = tokens_BTD[:, 0]
        else:
            pooled_BD = (tokens_BTD[:, 1:] if self._pooled == "patches" else tokens_BTD).mean(dim=1)
        found: Tensor = self.norm(pooled_BD)
        return found

    def train(self, mode: bool = True) -> ImageTower:
        """Leave dropout off, and statistics as they are, in either mode."""
        return super().train(False)

    def save(self, folder: Path) -> None:
        """Write the whole backbone as a Hugging Face folder, its last block as it is now."""
        self._whole[0].save_pretrained(folder, safe_serialization=True)

    @staticmethod
    def _moved(argument: Any, device: torch.device) -> Any:
        return argument.to(device) if isinstance(argument, Tensor) else argument
