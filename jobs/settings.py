"""Settings that commands share with each other, and with the steps that they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.options import declared
from cluster.presets import Presets
from engine.images.settings import ImageSettings
from engine.losses.settings import Schedule
from engine.models.settings import EncoderSizes, Patches
from engine.training.settings import BASELINES, Baseline, Head, MultimodalSettings

TEMPERATURE = 4.0
"""Temperature of predicted distributions. 1 is the paper's; a head that overfits to few contexts predicts
little but the entity itself, and a higher one brings out which others are similar."""
MASKED_LM_SENTENCES = 20_000
"""Sentences that a masked language model is trained on at most."""

CORPUS = "corpus"
"""The tokenizer's name that stands for one trained on the corpus."""

CONTRAST_FLAGS = {
    f"schedule.contrast.{name}": f"--contrast-{name}" for name in ("temperature", "prior", "concentration")
}
"""Options of the contrastive objective, whose names alone would not say what they are of."""


PRESETS = Path(__file__).parent / "presets"
"""Settings of the papers, a file a paper with a section for each command."""


def presets(command: str) -> Presets:
    """Return what ``--preset`` of a command takes settings from."""
    return Presets(PRESETS, command)


TRAINING, MODEL, OBJECTIVES, DATA = "Training", "Model", "Objectives", "Texts and model input"
"""Headings of options."""


def multimodal_headings(group: str) -> dict[str, str]:
    """Return the headings of the options of a group of :class:`MultimodalSettings`."""
    model = {f"{group}.{name}": MODEL for name in EncoderSizes.model_fields}
    return {group: TRAINING, f"{group}.schedule": OBJECTIVES, **model}


TYPING_HEADINGS = {
    "label_words": DATA,
    "labels": DATA,
    "model": MODEL,
    "training": TRAINING,
    "training.mlm": OBJECTIVES,
    "training.next_word": OBJECTIVES,
    "training.objective_weight": OBJECTIVES,
    "training.label_weight": OBJECTIVES,
    "training.max_tokens": DATA,
}
"""Headings of the options that the commands of entity typing share."""


class LabelWords(BaseModel):
    """The words that types are read as."""

    label_words: str | None = Field(
        default=None,
        description="Read some types as other words than their own: a JSON file of {type: words}.",
    )


def temperature_field() -> Any:
    """Return the option of the commands that make predicted distributions."""
    return Field(
        default=TEMPERATURE,
        ge=0.01,
        description="Divide the logits of predicted distributions by this; the papers' is 1.",
    )


class Beginning(BaseModel):
    """What the multi-modal encoder's new layers begin as, and which head is read after the training."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: Literal["lda", "random"] = Field(
        default="lda",
        description="Begin the multi-modal encoder's new layers as a summary of words and image, fitted in "
        "closed form (linear discriminant analysis), or at random as the paper does, for large corpora.",
    )
    head: Head | None = Field(
        default=None,
        description="Predict entities, for multiexpan, by the nearest of their mean states, or by the head "
        "that was trained, as the paper does.  [default: nearest-mean, with --init random trained]",
    )

    def settings(self, base: MultimodalSettings, of_baseline: bool = False) -> MultimodalSettings:
        """Return the settings of a training that begins so; a baseline has no new layers to begin."""
        fitted = self.init == "lda"
        head: Head = self.head or ("nearest-mean" if fitted or of_baseline else "trained")
        begun = {} if of_baseline else {"summary": fitted, "identity": fitted}
        return base.model_copy(update={"head": head, **begun})


OBJECTIVE_SWITCHES = ("prediction", "contrastive", "clustering", "distillation")
PAIRS_ALONE = (
    *("passes", "refresh_pairs"),
    *("contrast_temperature", "contrast_prior", "contrast_concentration"),
)
"""Options that mean something where contexts are compared in pairs: contrast or clustering."""


def unused_of_baseline(baseline: Baseline) -> dict[str, str]:
    """Return the options of the multi-modal encoder that a baseline's training does without, and why."""
    row, name = BASELINES[baseline], f"beside --baseline {baseline}"
    why = f"{name}, which is trained by entity prediction alone"
    found = dict.fromkeys((*OBJECTIVE_SWITCHES, *PAIRS_ALONE, "clusters"), why)
    found |= dict.fromkeys(("init", "visual_layers"), f"{name}, whose image tower is its backbone's")
    if row.architecture != "cross-attention":
        found |= dict.fromkeys(("cross_layers", "inner"), f"{name}, which has no layers across modalities")
    if row.modality == "image":
        found["modality_dropout"] = f"{name}, which sees images alone"
    return found


def unused_of_objectives(schedule: Schedule) -> dict[str, str]:
    """Return the options of objectives that are switched off, and why."""
    found = {} if schedule.clustering else {"clusters": "without clustering"}
    found |= {} if schedule.prediction else {"smoothing": "without entity prediction"}
    return found if schedule.paired else found | dict.fromkeys(PAIRS_ALONE, "without contrast and clustering")


class TrainingProcesses(BaseModel):
    """The number of processes that train, and their device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(
        default=1, ge=1, description="Train in this many processes; one on the CPU needs no cluster."
    )
    gpu: bool = Field(default=False, description="Give each worker a GPU (NCCL, bfloat16).")


class Making(BaseModel):
    """The settings by which image features are made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(
        description="Backbone: a model folder, local or s3://, or a hub name; ResNet, MobileNet, ViT, BEiT "
        "or CLIP."
    )
    patches: Patches = declared(ImageSettings, "patches")
    grid: int = declared(ImageSettings, "grid")
    batch_size: int = Field(default=32, ge=1, description="Decode and encode this many images at a time.")
