"""Settings that commands share with each other, and with the steps that they run."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cluster.options import declared
from engine.images.settings import ImageSettings
from engine.models.settings import Patches

TEMPERATURE = 4.0
"""Temperature of predicted distributions. 1 is the paper's; a head that overfits to few contexts predicts
little but the entity itself, and a higher one brings out which others are similar."""
CONTRAST_FLAGS = {
    f"schedule.contrast.{name}": f"--contrast-{name}" for name in ("temperature", "prior", "concentration")
}
"""Options of the contrastive objective, whose names alone would not say what they are of."""


class TrainingProcesses(BaseModel):
    """The number of processes that train, and their device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=1, description="Training processes; one on the CPU needs no cluster.")
    gpu: bool = Field(default=False, description="One GPU a worker (NCCL, bfloat16).")


class Making(BaseModel):
    """How features are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="The backbone: a model folder, local or s3://, or a hub name. ResNet, MobileNet, ViT, "
        "CLIP."
    )
    patches: Patches = declared(ImageSettings, "patches")
    grid: int = declared(ImageSettings, "grid")
    batch_size: int = Field(default=32, ge=1, description="Images that are decoded and encoded at a time.")
