"""Define the settings of image features without their models: a command line imports no model library."""

from __future__ import annotations

import hashlib
import re

from pydantic import BaseModel, ConfigDict, Field

from engine.models.settings import Patches


class ImageSettings(BaseModel):
    """The settings that decide what the features are, apart from the images."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: str
    """:meth:`engine.models.vision.VisionBackbone.fingerprint`."""
    patches: Patches = Field(
        default="grid",
        description='"grid" takes the cells of the last feature map of the whole image. "crop", as the '
        'paper, encodes 6 x 6 pieces of 32 x 32 pixels one by one (ResNet and MobileNet). "tokens" keeps all '
        "that enters the last block, for train-encoder --baseline.",
    )
    grid: int = Field(
        default=7, ge=1, description="Keep at most this many cells a side; a larger map is averaged down."
    )
    """Means nothing for "crop" and "tokens"."""

    def key(self, model: str) -> str:
        """Return the folder name of these settings: readable, and different if anything is.

        Args:
            model: as the user named it; its last part is shown.
        """
        cut = f"grid{self.grid}" if self.patches == "grid" else self.patches
        digest = hashlib.sha256(f"{self.backbone} {cut}".encode()).hexdigest()[:8]
        shown = re.sub(r"[^\w.-]+", "-", model.rstrip("/").rsplit("/", 1)[-1]).strip(".-") or "model"
        return f"{shown}-{cut}-{digest}"
