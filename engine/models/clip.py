"""Encode sentences and images as vectors of one space by CLIP's two towers (MESED, equation 1).

Works without torchvision: images come squeezed to a square, as everywhere here (CLIP's own preprocessing
crops the middle instead), and the scaling out of the model's ``preprocessor_config.json``.

Shape letters: B items, S pixels a side, D dimensions of the common space.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import CLIPModel

from engine.errors import UserError
from engine.models.fit import check_tokenizer
from engine.models.hub import NamedModel
from engine.models.plain_text import without_controls
from engine.models.text import fast_dtype
from engine.models.vision import Scaling, read_scaling

Tensor = torch.Tensor


def scaled(pixels_BSS3: Tensor, scaling: Scaling, device: torch.device) -> Tensor:
    """Return a model's input, float32 [B, 3, S, S], of pixels, uint8."""
    mean, std = (torch.tensor(row, device=device) for row in (scaling.mean, scaling.std))
    values = (pixels_BSS3.to(device).float() * scaling.factor - mean) / std
    return values.permute(0, 3, 1, 2)


class ClipEncoder:
    """A loaded CLIP; see :meth:`load`."""

    def __init__(self, model: Any, tokenizer: Any, scaling: Scaling) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.scaling = tokenizer, scaling
        self._device = torch.device("cpu")

    @classmethod
    def load(cls, name: str) -> ClipEncoder:
        """Load from a model folder, local or in a bucket, or a hub name (:class:`NamedModel`).

        Raises:
            UserError: there is no such model, or it is no CLIP with both towers.
        """
        named = NamedModel.open(name, "--clip")
        config = named.config()
        if config.model_type != "clip":
            raise UserError(
                f"{named.label}: a model of type {config.model_type!r}; a CLIP with both towers is needed"
            )
        scaling, tokenizer = read_scaling(named, config), named.tokenizer()
        check_tokenizer(named.label, tokenizer, config.text_config.vocab_size)
        return cls(named.model(CLIPModel, torch.float32), tokenizer, scaling)

    @property
    def side(self) -> int:
        """Pixels a side of the images that :meth:`images` takes, S."""
        return self.scaling.side

    @property
    def longest(self) -> int:
        """Tokens of a sentence that are read; what lies beyond is not."""
        return int(self.model.config.text_config.max_position_embeddings)

    def to(self, device: torch.device) -> ClipEncoder:
        """Move the weights to a device."""
        self.model.to(device)
        self._device = device
        return self

    @torch.inference_mode()
    def texts(self, sentences: Sequence[str]) -> Tensor:
        """Return the sentences' vectors, float32 [B, D], on the CPU."""
        given = self.tokenizer(
            without_controls(self.tokenizer, sentences),
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=self.longest,
            return_tensors="pt",
        )
        with self._precision():
            found = self.model.get_text_features(
                input_ids=given["input_ids"].to(self._device),
                attention_mask=given["attention_mask"].to(self._device),
            )
        return found.pooler_output.float().cpu()

    @torch.inference_mode()
    def images(self, pixels_BSS3: Tensor) -> Tensor:
        """Return the images' vectors, float32 [B, D], on the CPU; pixels are uint8, :attr:`side` a side."""
        with self._precision():
            found = self.model.get_image_features(scaled(pixels_BSS3, self.scaling, self._device))
        return found.pooler_output.float().cpu()

    def _precision(self) -> torch.autocast:
        dtype = fast_dtype(self._device) if self._device.type == "cuda" else torch.float32
        return torch.autocast(self._device.type, dtype, enabled=dtype != torch.float32)
