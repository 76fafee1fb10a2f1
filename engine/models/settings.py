"""Define the settings of models without the models: a command line imports no model library."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Patches = Literal["grid", "crop", "tokens"]
"""What is kept of an image: the cells of one feature map, pieces that pass by themselves, or all that enters
the last block."""

Architecture = Literal["multiexpan", "image", "two-towers", "cross-attention"]
"""What makes a state of a context: MultiExpan, or a baseline (:mod:`engine.models.baselines`)."""


class EncoderSizes(BaseModel):
    """The sizes and the start of the layers that are added to the text encoder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture = "multiexpan"

    visual_layers: int = Field(default=3, ge=0, description="Give the visual transformer this many layers.")
    cross_layers: int = Field(
        default=3, ge=1, description="Give the cross-modal transformer this many layers."
    )
    inner: int = Field(
        default=2, ge=1, description="Make the inner size of these layers this many times the states' size."
    )
    dropout: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="Drop this share of the projected patches' values, and half of it in the layers.",
    )
    logit_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Drop this share of the logits in training; the authors of the paper drop 0.2.",
    )
    summary: bool = True
    identity: bool = True


class MultimodalConfig(EncoderSizes):
    """The sizes of an encoder, and those that follow from the image features."""

    n_patches: int = Field(ge=1)
    vision_dim: int = Field(ge=1)
    head_dim: int = Field(default=64, ge=1)
    """Dimensions of an attention head; a text encoder of fewer dimensions has one head."""
