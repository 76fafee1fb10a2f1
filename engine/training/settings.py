"""Define the settings of trainings without the trainings: a command line imports no model library.

A run's name is made from its settings, in the order of their fields and by their aliases: a field that was
renamed keeps its former name as its alias, so that what was trained is found again.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from pydantic_core import to_json

from engine.losses.settings import LARGE_VOCABULARY, Schedule, UltraFineSettings
from engine.models.settings import Architecture, EncoderSizes, MultimodalConfig
from engine.training.schedule import RateSchedule, encoder_rate, warmup_cosine

Modality = Literal["text+image", "text", "image"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

Head = Literal["nearest-mean", "trained"]
"""What predicts entities after the training: a classifier by the nearest of their mean states, or the head
that was trained."""


class TrainerSettings(BaseModel):
    """The settings of a run; the defaults are the text encoder's."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(default=12, ge=1, description="Train for this many passes over all contexts.")
    batch_size: int = Field(
        default=256, ge=1, description="Take this many contexts a step, over all workers."
    )
    learning_rate: float = Field(
        default=2e-3, gt=0, description="Let the schedule peak at this learning rate."
    )
    weight_decay: float = Field(
        default=0.1,
        ge=0,
        description="Decay weights at this rate; biases and the scales of norms do not decay.",
    )
    clip: float = Field(default=1.0, ge=0, description="Clip the gradient to this norm; 0: do not clip it.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="Compute matrix products in this type; auto takes bfloat16 where the hardware is fast in "
        "it.",
    )
    """Weights are float32."""
    seed: int = Field(default=13, description="Seed the head's first weights and the order of the sentences.")

    @property
    def betas(self) -> tuple[float, float]:
        """The betas of AdamW."""
        return 0.9, 0.999

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of ``total`` steps."""
        raise NotImplementedError


class EncoderRunSettings(TrainerSettings):
    """The settings of a run of either encoder; the learning rate follows a schedule of one's choice."""

    learning_rate_schedule: RateSchedule = Field(
        default="one-cycle",
        exclude_if=lambda schedule: schedule == "one-cycle",
        description="Raise and lower the learning rate once over the run, or leave it as it is at every "
        "step, as the programs of RetExpan and MultiExpan do.",
    )
    """Runs made before there was a choice keep their names: the default is in none."""

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of ``total`` steps."""
        return encoder_rate(self.learning_rate_schedule, step, total, self.learning_rate)


class EncoderSettings(EncoderRunSettings):
    """Settings of a training run of the text encoder (RetExpan, appendix B).

    The paper's own are 20 epochs at a constant 4e-5, batches of 128 on each of 8 workers and a weight decay
    of 1e-2; its program clips no gradient (``clip=0``) and trains with BERT's dropout of 0.1. They need many
    more steps than ours, whose rate is fifty times as high for a moment.
    """

    smoothing: float = Field(default=0.075, ge=0, lt=1, description="Smooth the labels by this share.")
    last_layer_dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        exclude_if=lambda share: share == 0,
        description="Drop this share of the text encoder's last layer's attention weights and outputs in "
        "training (BERT's own is 0.1; not with images).",
    )
    """In the authors' program the frozen layers drop values too; their cached states cannot."""
    entity_loss: Literal["auto", "full", "sampled"] = Field(
        default="auto",
        exclude_if=lambda loss: loss == "auto",
        description="Compute the loss over all entities, or estimate it from a sample; auto does so with "
        "more than 200,000 entities (not with images).",
    )
    sampled_entities: int = Field(
        default=8192,
        ge=2,
        exclude_if=lambda samples: samples == 8192,
        description="Estimate the loss from this many entities a step and worker.",
    )

    def samples_of(self, n_entities: int) -> int | None:
        """Return how many of so many entities the loss is estimated from; None: it takes all."""
        large = self.entity_loss == "auto" and n_entities > LARGE_VOCABULARY
        return self.sampled_entities if large or self.entity_loss == "sampled" else None


class ContrastiveSettings(EncoderSettings):
    """Settings of a training of the text encoder by entity prediction and the contrast of mined lists."""

    ultra_fine: UltraFineSettings = UltraFineSettings()


class ShownSettings(EncoderRunSettings):
    """Settings of a run of either encoder: passes, batches, and the modalities of a context."""

    epochs: int = Field(default=8, ge=1, description="Train for this many passes over all contexts.")
    batch_size: int = Field(default=64, ge=4, description="Take this many contexts a step, over all workers.")
    learning_rate: float = Field(
        default=5e-4, gt=0, description="Let the schedule peak at this learning rate."
    )
    text_share: float = Field(
        default=0.1,
        ge=0,
        description="Train the text encoder's own layer at this share of the learning rate.",
    )
    """It does not begin anew."""
    modality: Modality = "text+image"
    modality_dropout: float = Field(
        default=0.3,
        validation_alias=AliasChoices("modality_dropout", "hidden"),
        serialization_alias="hidden",
        ge=0,
        le=0.5,
        description="Show this share of the contexts without their text, and as many without their image.",
    )
    """Modality dropout, of contexts with both: else a few images give the entity away, and text is unused."""


class MultimodalSettings(EncoderSizes, ShownSettings):
    """Settings of a run. The paper's own (50 epochs, lr 1e-5, batch 256) are for 434,675 contexts.

    The order of the bases is that of the fields in a stored run, which a run's name is made from.
    """

    head: Head = Field(
        default="nearest-mean",
        exclude_if=lambda head: head == "trained",
        description="Predict entities, for multiexpan, by the nearest of their mean states, or by the head "
        "that was trained, as the paper does.",
    )
    """Runs of earlier versions kept what was trained, and that is in no run's name."""
    schedule: Schedule = Schedule()

    def config(self, n_patches: int, vision_dim: int) -> MultimodalConfig:
        """Return the sizes of the encoder for some features."""
        own = self.model_dump(include=set(EncoderSizes.model_fields))
        return MultimodalConfig(n_patches=n_patches, vision_dim=vision_dim, **own)


class BaselineRow(NamedTuple):
    """A vision or vision-language row of MESED's table 3, as it is trained here."""

    architecture: Architecture
    modality: Modality
    families: tuple[str, ...] = ()
    """Backbones (``model_type``) of the image features by which the row has its name; none: any."""


Baseline = Literal["image", "vit", "beit", "clip-image", "two-towers", "clip", "albef"]

BASELINES: dict[Baseline, BaselineRow] = {
    "image": BaselineRow("image", "image"),
    "vit": BaselineRow("image", "image", ("vit",)),
    "beit": BaselineRow("image", "image", ("beit",)),
    "clip-image": BaselineRow("image", "image", ("clip", "clip_vision_model")),
    "two-towers": BaselineRow("two-towers", "text+image"),
    "clip": BaselineRow("two-towers", "text+image", ("clip", "clip_vision_model")),
    "albef": BaselineRow("cross-attention", "text+image"),
}
"""The rows by name; "image" and "two-towers" are the same with any backbone."""

ENTITY_PREDICTION_ALONE = {
    "prediction": True,
    "contrastive": False,
    "clustering": False,
    "distillation": False,
}
"""Switches of :class:`~engine.losses.settings.Schedule` of masked entity prediction alone."""


def baseline_settings(base: MultimodalSettings, baseline: Baseline) -> MultimodalSettings:
    """Return the settings of a baseline's training: by entity prediction alone, as the paper trains them.

    Modality dropout is ours and no part of that: none is applied unless ``base`` was given a share.
    """
    row = BASELINES[baseline]
    changed: dict[str, Any] = {
        "architecture": row.architecture,
        "modality": row.modality,
        "schedule": base.schedule.model_copy(update=ENTITY_PREDICTION_ALONE),
    }
    if "modality_dropout" not in base.model_fields_set:
        changed["modality_dropout"] = 0.0
    return base.model_copy(update=changed)


class LmSettings(TrainerSettings):
    """The settings of a run. The defaults are the paper's for continued pre-training (GenExpan)."""

    epochs: int = Field(
        default=1,
        ge=0,
        description="Train for this many passes over the corpus; 0 publishes the model as it is.",
    )
    batch_size: int = Field(default=16, ge=1, description="Take this many blocks a step, over all workers.")
    learning_rate: float = Field(
        default=1e-5,
        gt=0,
        description="Let the schedule peak at this learning rate.",
    )
    weight_decay: float = Field(
        default=1e-4,
        ge=0,
        description="Decay weights at this rate; biases and the scales of norms do not decay.",
    )
    beta2: float = Field(
        default=0.999, ge=0, lt=1, description="Let AdamW decay the mean squared gradient by this factor."
    )
    warmup: float = Field(
        default=0.03,
        ge=0,
        description="Raise the learning rate over this many steps; below 1, over this share of the run.",
    )
    held_out_blocks: int = Field(
        default=64,
        ge=1,
        description="Measure the perplexity on this many held-out blocks, drawn by the seed.",
    )
    seed: int = Field(
        default=13, description="Seed a new model's weights, the order, and the draw of held-out sentences."
    )
    lora: bool = Field(
        default=False,
        exclude_if=lambda lora: not lora,
        description="Freeze the model's weights and train adapters beside its layers (LoRA).",
    )
    lora_rank: int = Field(
        default=16,
        ge=1,
        exclude_if=lambda rank: rank == 16,
        description="Give the adapters' matrices this rank.",
    )
    lora_alpha: int = Field(
        default=32,
        ge=1,
        exclude_if=lambda alpha: alpha == 32,
        description="Add the adapters' products times this number over the rank.",
    )
    lora_targets: str = Field(
        default="all-linear",
        min_length=1,
        exclude_if=lambda targets: targets == "all-linear",
        description="Adapt these layers: the ends of their names, with commas; all-linear: all but the "
        "output layer.",
    )
    quantize: Literal["4bit"] | None = Field(
        default=None,
        exclude_if=lambda quantize: quantize is None,
        description="Hold the frozen weights of linear layers in 4 bits (QLoRA); for --lora, and below "
        "--zero-stage 3.",
    )
    keep_adapter: bool = Field(
        default=False,
        exclude_if=lambda keep: not keep,
        description="Publish the adapter alone, to be merged when it is loaded; else the merged model.",
    )

    @property
    def betas(self) -> tuple[float, float]:
        """The betas of AdamW."""
        return 0.9, self.beta2

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, counted from 0, of a run of ``total`` steps."""
        return warmup_cosine(step, total, self.learning_rate, self.warmup)


class TypingSettings(EncoderRunSettings):
    """Settings of a training of the typing model (FiveFine, sections 2.4 and 4.1).

    The paper's own for the crowd data are 5,000 steps (80 epochs of UFET's 1,998) at a constant 1e-5 with
    BERT, after a million steps on weak data; ours begin without any.
    """

    epochs: int = Field(default=4, ge=1, description="Train for this many passes over all mentions.")
    batch_size: int = Field(default=32, ge=1, description="Take this many mentions a step, over all workers.")
    learning_rate: float = Field(
        default=2e-4, gt=0, description="Let the schedule peak at this learning rate."
    )
    new_rate: float = Field(
        default=5.0,
        gt=0,
        description="Train the pooling of labels, which begins anew, at this many times the learning rate.",
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Decay weights at this rate; biases and the scales of norms do not decay.",
    )
    layers: int | None = Field(
        default=None,
        ge=1,
        description="Train the encoder's last layers alone, this many; the embeddings, which labels are made "
        "of, stay too.  [default: all layers and the embeddings]",
    )
    label_weight: float = Field(
        default=5.0,
        gt=0,
        description="Count a mention's own label so many times; those that a program added (y_added), and "
        "those that it lacks, count once.",
    )
    mlm: bool = Field(default=True, description="Predict masked tokens of the mentions' texts, too.")
    next_word: bool = Field(default=True, description="Predict the words beside the mentions, too.")
    objective_weight: float = Field(
        default=0.1, ge=0, description="Weight of each of the two objectives beside typing."
    )
    dropout: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Drop this share of the encoder's outputs in training (BERT's own is 0.1).",
    )
    max_tokens: int = Field(
        default=128,
        ge=16,
        description="Give the model this many tokens of a mention and its context at most.",
    )
    seed: int = Field(
        default=13, description="Seed the pooling's first weights, the order, and what is masked."
    )


LORA_RATE = 2e-4
"""Peak rate for adapters of models of 7B and 13B parameters (Dettmers et al. 2023, table 9)."""

SMALL_RATE, LARGE_RATE = (135e6, 2e-4), (6.7e9, 1e-5)
"""Parameters of a model, and the peak rate of its further training: a SmolLM2 that was measured here, and the
paper's LLaMA 7B (GenExpan, appendix B)."""


def rate_by_size(parameters: int) -> float:
    """Return the peak learning rate for training a model of so many parameters further.

    2e-4 up to 135M parameters and 1e-5 from 6.7B on. In between the logarithm of the rate falls evenly with
    that of the size (4.3e-5 at 1B), to two digits. The rule is ours; its ends are :data:`SMALL_RATE` and
    :data:`LARGE_RATE`.
    """
    (small, high), (large, low) = SMALL_RATE, LARGE_RATE
    share = math.log(max(parameters, 1) / small) / math.log(large / small)
    return float(f"{high * (low / high) ** min(max(share, 0), 1):.1e}")


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
    usual = LmSettings()
    later = [name for name in LmSettings.model_fields if name not in NAMED]
    content |= {n: getattr(settings, n) for n in later if getattr(settings, n) != getattr(usual, n)}
    return to_json(content).decode()
