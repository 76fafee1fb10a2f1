"""Share settings between commands."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

CONTRAST_FLAGS = {
    f"schedule.contrast.{name}": f"--contrast-{name}" for name in ("temperature", "prior", "concentration")
}
"""Options of the contrastive objective, whose names alone would not say what they are of."""


class TrainingProcesses(BaseModel):
    """The number of processes that train, and their device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(default=1, ge=1, description="Training processes; one on the CPU needs no cluster.")
    gpu: bool = Field(default=False, description="One GPU a worker (NCCL, bfloat16).")
