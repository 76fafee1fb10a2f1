"""Define the settings of image selection without its models: a command line imports no model library."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

ALPHA = 0.5
"""The paper gives no value: both terms count the same."""


class SelectionSettings(BaseModel):
    """The settings that decide which image is selected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: str = Field(description="CLIP, both towers: a model folder, local or s3://, or a hub name.")
    detector: str | None = Field(
        default=None,
        description="A detection model: YOLOS, RT-DETR or a DETR that needs no timm. Without it, an image's "
        "objects are the whole image, its four quadrants and its middle.",
    )
    vision: str | None = Field(
        default=None,
        description="Makes the vectors of objects and typical images: ResNet, MobileNet, ViT, CLIP. Default: "
        "the image tower of --clip.",
    )
    alpha: float = Field(
        default=ALPHA,
        ge=0,
        le=1,
        description="Weight of the agreement with the sentence. The paper does not give its value.",
    )
