"""Encode contexts as the vision and vision-language baselines of MESED do (section "Experiment Setup").

Each is a drop-in for :class:`engine.models.multimodal.MultimodalEncoder`: the same contexts in, a state a
context out, further trained by entity prediction (equation 7) with its last block or blocks.

| row of table 3 | architecture | backbone of the image features |
| --- | --- | --- |
| ViT, BEiT, CLIP-IMG | image | a ViT, a BEiT, a CLIP |
| CLIP | two-towers | a CLIP |
| ALBEF | cross-attention | a ViT |

The paper says no more of them than that CLIP's modalities meet in a dot product and ALBEF's in a
transformer. Chosen here: two-towers is each tower's own vector at length 1, side by side, so that the cosine
of two contexts is the mean of the towers' cosines and the head reads both. Cross-attention is ALBEF's
fusion: layers in which the text attends to itself and then to the image's tokens, with the state at the mask;
its layers begin at random (ALBEF's weights are not loaded), and its pre-training objectives, contrast of
both sides and matching, are left to those weights. The text tower is the workspace's text encoder, read at
the mask; the text side of a CLIP folder has no mask token and cannot be that encoder.

Shape letters: B contexts, L tokens of a sentence, T tokens of an image, C dimensions below the image tower's
block, D of a state.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from engine.models.image_tower import ImageTower
from engine.models.settings import Architecture, MultimodalConfig
from engine.models.text import BARE_TOKENS, MaskPositionLayer, padding_mask

Tensor = torch.Tensor


class Baseline(nn.Module):
    """The encoder of a baseline: an image tower, and the text encoder's last layer where it reads text.

    Args of every forward pass, which returns the state of each context, [B, D]:
        states_BLD: states below the text encoder's last layer.
        lengths_B: tokens of each sentence; three (begin, mask, end) where there is no text.
        mask_B: position of the mask token.
        kept_BTC: the input of the image tower's block.
        has_image_B: bool, whether the context has an image.
    """

    def __init__(
        self, tower: ImageTower, config: MultimodalConfig, dim: int, last: MaskPositionLayer | None = None
    ) -> None:
        super().__init__()
        self.tower, self.config, self.dim = tower, config, dim
        self._begun: tuple[nn.Module, ...] = (tower,) if last is None else (last, tower)
        for part in self._begun:
            part.requires_grad_(True)

    @property
    def pretrained(self) -> list[nn.Parameter]:
        """What learns and does not begin anew."""
        return [parameter for part in self._begun for parameter in part.parameters()]


class ImageEncoder(Baseline):
    """ViT, BEiT or CLIP's image encoder: the image's vector, whatever the text."""

    def __init__(self, last: MaskPositionLayer, tower: ImageTower, config: MultimodalConfig) -> None:
        super().__init__(tower, config, tower.dim)

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, mask_B: Tensor, kept_BTC: Tensor, has_image_B: Tensor
    ) -> Tensor:
        """Return the image's vector, [B, D]; zeros without an image."""
        return torch.where(has_image_B[:, None], self.tower(kept_BTC), 0)


class TwoTowers(Baseline):
    """CLIP: a vector of either tower, which meet in nothing but a sum of products."""

    def __init__(self, last: MaskPositionLayer, tower: ImageTower, config: MultimodalConfig) -> None:
        super().__init__(tower, config, last.dim + tower.dim, last)
        self.last = last

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, mask_B: Tensor, kept_BTC: Tensor, has_image_B: Tensor
    ) -> Tensor:
        """Return both towers' unit vectors side by side, [B, D]; zeros for a modality that is absent."""
        text_BD = self.last(states_BLD, lengths_B, mask_B)
        halves = [
            torch.where(there_B[:, None], F.normalize(half.float(), dim=1), 0)
            for half, there_B in ((text_BD, lengths_B > BARE_TOKENS), (self.tower(kept_BTC), has_image_B))
        ]
        return torch.cat(halves, dim=1)


class CrossAttentionEncoder(Baseline):
    """ALBEF's fusion: text that attends to itself and to the tokens of the image, read at the mask."""

    def __init__(self, last: MaskPositionLayer, tower: ImageTower, config: MultimodalConfig) -> None:
        super().__init__(tower, config, last.dim, last)
        self.last = last
        self.project = nn.Linear(tower.dim, self.dim)
        # What a text without an image attends to; beside the image's tokens it is one more.
        self.absent_D = nn.Parameter(torch.zeros(self.dim))
        self.fusion = nn.ModuleList(self._layer() for _ in range(config.cross_layers))

    def _layer(self) -> nn.TransformerDecoderLayer:
        config = self.config
        return nn.TransformerDecoderLayer(
            self.dim,
            max(1, self.dim // config.head_dim),
            config.inner * self.dim,
            config.dropout / 2,
            F.gelu,
            batch_first=True,
        )

    def forward(
        self, states_BLD: Tensor, lengths_B: Tensor, mask_B: Tensor, kept_BTC: Tensor, has_image_B: Tensor
    ) -> Tensor:
        """Return the state at each context's mask, [B, D]; no token of an absent image is attended to."""
        text_BLD = self.last.every_position(states_BLD, lengths_B)
        padding_BL = padding_mask(lengths_B, states_BLD.shape[1])
        image_BTD = self.project(self.tower.tokens(kept_BTC))
        absent_B1D = self.absent_D.expand(len(image_BTD), 1, -1).to(image_BTD.dtype)
        image_BTD = torch.cat([absent_B1D, image_BTD], dim=1)
        unseen_BT = ~has_image_B[:, None].repeat(1, image_BTD.shape[1])
        unseen_BT[:, 0] = False
        for layer in self.fusion:
            text_BLD = layer(
                text_BLD,
                image_BTD,
                tgt_key_padding_mask=padding_BL,
                memory_key_padding_mask=unseen_BT,
            )
        return text_BLD[torch.arange(len(text_BLD), device=text_BLD.device), mask_B]


BaselineMaker = Callable[[MaskPositionLayer, ImageTower, MultimodalConfig], Baseline]

ENCODERS: dict[Architecture, BaselineMaker] = {
    "image": ImageEncoder,
    "two-towers": TwoTowers,
    "cross-attention": CrossAttentionEncoder,
}
"""The baselines' encoders by architecture."""
