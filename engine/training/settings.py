"""Define the settings of trainings without the trainings: a command line imports no model library.

A run's name is made from its settings, in the order of their fields.
"""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from engine.losses.settings import Schedule
from engine.models.settings import EncoderSizes, MultimodalConfig
from engine.training.schedule import one_cycle, warmup_cosine

Modality = Literal["text+image", "text", "image"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)


class TrainerSettings(BaseModel):
    """The settings of a run; the defaults are the text encoder's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: int = Field(default=12, ge=1, description="Passes over all contexts.")
    batch_size: int = Field(default=256, ge=1, description="Contexts a step, over all workers.")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak of the one-cycle schedule.")
    weight_decay: float = Field(default=0.1, ge=0, description="Not on biases and norms.")
    clip: float = Field(default=1.0, gt=0, description="Largest norm of the gradient.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Of the matrix products; auto: bfloat16 where the hardware is fast in it.",
    )
    """Weights are float32."""
    seed: int = Field(default=13, description="Of the head's first weights and the order of sentences.")

    @property
    def betas(self) -> tuple[float, float]:
        """The betas of AdamW."""
        return 0.9, 0.999

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of ``total`` steps."""
        return one_cycle(step, total, self.learning_rate)


class EncoderSettings(TrainerSettings):
    """Settings of a training run. The paper's own (lr 4e-5, 20 epochs) need many more steps than these."""

    smoothing: float = Field(default=0.075, ge=0, lt=1, description="Label smoothing.")


class ShownSettings(TrainerSettings):
    """Settings of a run of either encoder: passes, batches, and the modalities of a context."""

    epochs: int = Field(default=8, ge=1, description="Passes over all contexts.")
    batch_size: int = Field(default=64, ge=4, description="Contexts a step, over all workers.")
    learning_rate: float = Field(default=5e-4, gt=0, description="Peak of the one-cycle schedule.")
    text_share: float = Field(
        default=0.1,
        ge=0,
        description="Share of the learning rate that the text encoder's own layer gets.",
    )
    """It does not begin anew."""
    modality: Modality = "text+image"
    hidden: float = Field(
        default=0.3,
        ge=0,
        le=0.5,
        description="Share of contexts shown without their text, and without their image.",
    )
    """Modality dropout, of contexts with both: else a few images give the entity away, and text is unused."""


class MultimodalSettings(EncoderSizes, ShownSettings):
    """Settings of a run. The paper's own (50 epochs, lr 1e-5, batch 256) are for 434,675 contexts.

    The order of the bases is that of the fields in a stored run, which a run's name is made from.
    """

    schedule: Schedule = Schedule()

    def config(self, n_patches: int, vision_dim: int) -> MultimodalConfig:
        """Return the sizes of the encoder for some features."""
        own = self.model_dump(include=set(EncoderSizes.model_fields))
        return MultimodalConfig(n_patches=n_patches, vision_dim=vision_dim, **own)


class LmSettings(TrainerSettings):
    """The settings of a run. The defaults are the paper's for continued pre-training (GenExpan)."""

    epochs: int = Field(
        default=1, ge=0, description="Passes over the corpus; 0 publishes the model as it is."
    )
    batch_size: int = Field(default=16, ge=1, description="Blocks a step, over all workers.")
    learning_rate: float = Field(default=1e-5, gt=0, description="Peak of the schedule.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Not on biases and norms.")
    beta2: float = Field(default=0.999, ge=0, lt=1, description="AdamW's decay of the mean squared gradient.")
    warmup: float = Field(
        default=0.03, ge=0, description="Steps of the linear rise; below 1 a share of the run."
    )
    held_out_blocks: int = Field(
        default=64, ge=1, description="Held-out blocks that the perplexity is measured on, drawn by the seed."
    )
    seed: int = Field(default=13, description="Of a new model's weights, the order and the held-out draw.")

    @property
    def betas(self) -> tuple[float, float]:
        """The betas of AdamW."""
        return 0.9, self.beta2

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of ``total`` steps."""
        return warmup_cosine(step, total, self.learning_rate, self.warmup)


NAMED = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "beta2"),
    *("clip", "warmup", "precision", "seed"),
)
"""The settings in the order in which a run's name has always been made from them."""


def named_settings(settings: LmSettings) -> str:
    """Return settings as the text that a run's name is made from: runs that exist keep their names.

    What came later is part of it where it is not the default.
    """
    content = {name: getattr(settings, name) for name in NAMED}
    if settings.held_out_blocks != LmSettings().held_out_blocks:
        content["held_out_blocks"] = settings.held_out_blocks
    return to_json(content).decode()


class EngineLayout(BaseModel):
    """The layout of a run on its workers; it changes what is computed only by rounding."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    zero_stage: Literal[0, 1, 2, 3] = 0
    """ZeRO stage: the workers partition 0 nothing, 1 optimiser state, 2 gradients too, 3 weights too."""
    micro_batch: int | None = Field(
        default=None,
        ge=1,
        description="Blocks of a worker that pass at once.  [default: all of its share]",
    )
    offload: bool = Field(default=False, description="Optimiser (at stage 3 weights too) on the host.")
    activation_checkpointing: bool = Field(default=False, description="Less memory, a third more work.")


class Layout(EngineLayout):
    """The layout of a run on its workers: optimiser state, at least, and so checkpoints are partitioned."""

    zero_stage: Literal[1, 2, 3] = Field(
        default=1, description="ZeRO: 1 optimiser, 2 gradients, 3 weights shared."
    )
