"""Define how a training is spread on its workers; imports no model library, as command lines read it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class EngineLayout(BaseModel):
    """The layout of a run on its workers; it changes what is computed only by rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage: the workers partition 0 nothing, 1 optimiser state, 2 gradients too, 3 weights too."""
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Pass this many of a worker's blocks at once.  [default: all of its share]",
    )
    offload: Literal["none", "cpu", "nvme"] = Field(
        default="none",
        description="Keep the optimiser's state (at stage 3 the weights too) in the host's memory: cpu. nvme "
        "(stage 3) keeps the state in files on a disk of each machine, and the weights in its memory.",
    )
    offload_folder: str | None = Field(
        default=None, description="With --offload nvme: a folder on a fast disk, on every machine."
    )
    weights: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Hold the weights that compute in this type; bfloat16 is for ZeRO stage 3, whose workers "
        "keep a float32 share of them beside.",
    )
    activation_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, a third more work."
    )


class Layout(EngineLayout):
    """The layout of a run on its workers: optimiser state, at least, and so checkpoints are partitioned."""

    zero_stage: Literal[1, 2, 3] = Field(
        default=1,
        description="Share between workers (ZeRO): 1 the optimiser's state, 2 gradients too, 3 weights too.",
    )

    @model_validator(mode="after")
    def _on_disk_at_stage_3_and_in_a_folder(self) -> Layout:
        if self.offload == "nvme" and self.zero_stage != 3:
            raise PydanticCustomError(
                "offload",
                "--offload nvme needs --zero-stage 3 (it is {stage}); below it take --offload cpu",
                {"stage": self.zero_stage},
            )
        if (self.offload == "nvme") != (self.offload_folder is not None):
            raise PydanticCustomError(
                "offload",
                "give --offload nvme and --offload-folder together: the disk that the state goes to",
            )
        return self

    @model_validator(mode="after")
    def _narrow_at_stage_3_only(self) -> Layout:
        if self.weights == "bfloat16" and self.zero_stage != 3:
            raise PydanticCustomError(
                "weights",
                "--weights bfloat16 needs --zero-stage 3 (it is {stage}): only there float32 shares are kept",
                {"stage": self.zero_stage},
            )
        return self
