"""Define the settings of image selection without its models: a command line imports no model library."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

ALPHA = 0.5
"""The paper gives no value: both terms count the same."""


class SelectionSettings(BaseModel):
    """The settings that decide which image is selected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clip: str = Field(
        description="Compare images and sentences by this CLIP: a model folder, local or s3://, or a hub "
        "name."
    )
    detector: str | None = Field(
        default=None,
        description="Find objects by this detection model: YOLOS, RT-DETR or a DETR that needs no timm. "
        "Without it, an image's objects are the whole image, its four quadrants and its middle.",
    )
    vision: str | None = Field(
        default=None,
        description="Make the vectors of objects and typical images by this model: ResNet, MobileNet, ViT, "
        "CLIP.  [default: the image tower of --clip]",
    )
    alpha: float = Field(
        default=ALPHA,
        ge=0,
        le=1,
        description="Give the agreement with the sentence this weight; the paper does not say which.",
    )
