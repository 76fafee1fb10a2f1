"""Predict with a trained text encoder: its last layer at the mask, and the head that it was trained with.

The head makes an entity's distributions of its texts alone, by which ProbExpan expands (a baseline of
UltraWiki). Retrieval by vectors does without it, so it lies in the encoder's folder as a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from engine.errors import FormatError
from engine.losses.entity_prediction import EntityHead
from engine.models.text import TextEncoder
from engine.training.cache import CachedStates
from engine.training.order import Rows
from engine.training.settings import Modality

Tensor = torch.Tensor

HEAD = "head/head.safetensors"
"""Where the head lies in the folder of the encoder."""


def save_head(head: nn.Module, folder: Path) -> None:
    """Write a head's weights beside its encoder."""
    path = folder / HEAD
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, path)


def read_head(folder: Path) -> dict[str, Tensor]:
    """Return the weights of the head beside an encoder.

    Raises:
        FormatError: there is none.
    """
    if not (folder / HEAD).exists():
        raise FormatError(f"{folder}: no {HEAD}, so it predicts no entities; train the encoder again")
    return load_file(folder / HEAD)


def start_head(head: EntityHead, weights: Mapping[str, Tensor]) -> None:
    """Give a head the weights of an earlier one, which knew the first of its entities.

    Each of the others begins as the mean of those: no more likely than any, and so learnt from its sentences
    alone.

    Args:
        head: of all entities.
        weights: from :func:`read_head`.

    Raises:
        FormatError: they are of another encoder, or of more entities.
    """
    known, known_dim = weights["2.weight"].shape
    n, dim = head.state_dict()["2.weight"].shape
    if known_dim != dim or known > n:
        raise FormatError(
            f"a head of {known} entities and {known_dim} numbers cannot begin one of {n} entities and {dim}"
        )
    grown = dict(weights)
    for name in ("2.weight", "2.bias"):
        mean = weights[name].mean(dim=0, keepdim=True)
        grown[name] = torch.cat([weights[name], mean.expand(n - known, *mean.shape[1:])])
    head.load_state_dict(grown)


class TextContext(NamedTuple):
    """A batch of sentences: frozen states [B, L, D], their lengths and mask places [B]."""

    states_BLD: Tensor
    lengths_B: Tensor
    mask_B: Tensor

    def to(self, device: torch.device) -> TextContext:
        """Return the batch on a device."""
        return TextContext(*(t.to(device) for t in self))


class TextContexts:
    """Contexts of which the text alone is used, gathered batch by batch.

    Args:
        states: the frozen text states.
    """

    def __init__(self, states: CachedStates) -> None:
        self._states = states
        self.lengths, self.entity_id = states.lengths, states.entity_id

    def usable(self, modality: Modality) -> Rows:
        """Return the contexts that have text, ascending."""
        return self._states.with_text

    def gather(self, rows: Rows, modality: Modality) -> TextContext:
        """Return some contexts."""
        return TextContext(*self._states.gather(rows)[:3])


class TextPredictionModel(nn.Module):
    """The trained layer and the head."""

    def __init__(self, encoder: TextEncoder, n_entities: int) -> None:
        super().__init__()
        self.last, self.dim = encoder.last, encoder.dim
        self.head = EntityHead(encoder.dim, n_entities)

    def forward(self, context: TextContext) -> tuple[Tensor, Tensor]:
        """Return the states [B, D] and the logits [B, N] of some contexts."""
        states_BD = self.last(*context)
        return states_BD, self.head(states_BD)

    @classmethod
    def load(cls, folder: Path) -> TextPredictionModel:
        """Read an encoder and its head.

        Raises:
            FormatError: there is no head, or one of another encoder.
        """
        weights = read_head(folder)
        model = cls(TextEncoder.load(str(folder)), len(weights["2.bias"]))
        try:
            model.head.load_state_dict(weights)
        except RuntimeError as error:
            raise FormatError(f"{folder / HEAD}: of another encoder ({error})") from None
        return model.eval()
