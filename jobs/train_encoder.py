"""Train the text encoder by entity prediction: Ray Train starts the workers, DeepSpeed takes the steps.

First the frozen layers run once per sentence into a cache, then only the last layer and the head learn.
A run that was stopped goes on from its last checkpoint, also on another number of workers. One worker on
the CPU trains in this process, unless there is a cluster to use.
"""

from __future__ import annotations

import time
from typing import Annotated, Literal

from pydantic import Field

from cluster.commandline import command
from cluster.effect import keys_within
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings, Former, Group
from engine.losses.settings import UltraFineSettings
from engine.storage.workspace import Workspace
from engine.training.settings import (
    BASELINES,
    Baseline,
    ContrastiveSettings,
    EncoderSettings,
    Modality,
    MultimodalSettings,
    baseline_settings,
)
from jobs import console
from jobs.settings import (
    CONTRAST_FLAGS,
    MODEL,
    OBJECTIVES,
    TRAINING,
    Beginning,
    TrainingProcesses,
    multimodal_headings,
    presets,
    unused_of_baseline,
    unused_of_objectives,
)

EXAMPLES = """
  seedset train-encoder --workspace demo-workspace/workspace
  seedset train-encoder --workspace demo-workspace/workspace-images --modality text+image --no-distillation
  seedset train-encoder --workspace work --epochs 20 --learning-rate 4e-5 --batch-size 1024
  seedset image-features --workspace work --model google/vit-base-patch16-224 --patches tokens
  seedset train-encoder --workspace work --baseline vit
  seedset train-encoder --workspace work --contrast newest
  seedset train-encoder --workspace work --warm-start newest --epochs 2
  ray job submit --working-dir . -- python -m jobs.train_encoder --workspace s3://b/work --workers 8 --gpu
"""

TEXT_ALONE = ("last_layer_dropout", "entity_loss", "sampled_entities")
"""Options of the text encoder that a training with images has not."""


class TrainEncoderSettings(CommandSettings):
    """The settings of the command; ``--modality`` says which of the two kinds of training it is."""

    workspace: str = Field(description="Folder or s3:// prefix with the model input of `seedset preprocess`.")
    model: str | None = Field(
        default=None,
        description="Start from this encoder.  [default: the one that the input was made for]",
    )
    modality: Modality = Field(
        default="text",
        description="Train the text encoder (RetExpan) or, with images, the multi-modal one (MultiExpan).",
    )
    baseline: Baseline | None = Field(
        default=None,
        description="Train a row of the paper's table 3 in MultiExpan's place, by entity prediction alone: "
        "an image encoder with its last block (vit, beit, clip-image; image: any backbone), both towers side "
        "by side (clip; two-towers: any backbone), or text that attends to the image (albef). Needs "
        "`seedset image-features --patches tokens`.",
    )
    contrast: str | None = Field(
        default=None,
        description='Train by the contrast of mined lists, too (RetExpan + contrast): "newest", those that '
        "`seedset mine-contrast` made last, or their key, a folder below WORKSPACE/contrast.",
    )
    warm_start: str | None = Field(
        default=None,
        description='Begin with this run, where the corpus has grown by `seedset import --append`: "newest", '
        "or a folder below WORKSPACE/runs/train_encoder (with --contrast: train_contrast). It takes fewer "
        "--epochs.",
    )
    text: EncoderSettings = EncoderSettings()
    ultra_fine: Annotated[UltraFineSettings, Group(label="with --contrast")] = UltraFineSettings()
    multimodal: Annotated[
        MultimodalSettings,
        Group(
            label="with images",
            without=["modality", "summary", "identity", "architecture", "head"],
            flags=CONTRAST_FLAGS,
        ),
    ] = MultimodalSettings()
    beginning: Beginning = Beginning()
    processes: TrainingProcesses = TrainingProcesses()
    cache_dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Keep the cached states in this type."
    )
    checkpoint_seconds: float = Field(
        default=30, ge=0, description="Write a checkpoint after this many seconds."
    )
    restart: bool = Field(default=False, description="Begin again, and forget the checkpoints.")

    def unused(self) -> dict[str, str]:
        """Return the options that the training asked for does without, and why."""
        found = self._unused_of_contrast() | self._unused_of_kind()
        return found | ({"warm_start": "with images"} if self.baseline or self.modality != "text" else {})

    def _unused_of_contrast(self) -> dict[str, str]:
        ultra_fine = keys_within(type(self), "ultra_fine")
        if self.contrast is None:
            return dict.fromkeys(ultra_fine, "without --contrast")
        if self.baseline or self.modality != "text":
            return dict.fromkeys(["contrast", *ultra_fine], "with images")
        return {} if self.ultra_fine.seed_text else {"prediction_seed_share": "without --seed-text"}

    def _unused_of_kind(self) -> dict[str, str]:
        if self.baseline:
            found = dict.fromkeys(TEXT_ALONE, "with images") | unused_of_baseline(self.baseline)
            if self.modality != (own := BASELINES[self.baseline].modality):
                found["modality"] = f"beside --baseline {self.baseline}, which is trained with {own}"
            return found
        if self.modality == "text":
            full = {"sampled_entities": "with --entity-loss full"} if self.text.entity_loss == "full" else {}
            return full | dict.fromkeys(
                [*keys_within(type(self), "multimodal"), *keys_within(type(self), "beginning")],
                "without --modality text+image or image",
            )
        found = dict.fromkeys(TEXT_ALONE, "with images") | unused_of_objectives(self.multimodal.schedule)
        return found if self.modality != "image" else found | {"modality_dropout": "with images alone"}

    def training(self) -> EncoderSettings | MultimodalSettings:
        """Return the settings of the training that was asked for."""
        multimodal = self.beginning.settings(self.multimodal, self.baseline is not None)
        if self.baseline:
            return baseline_settings(multimodal, self.baseline)
        if self.modality == "text":
            if self.contrast is None:
                return self.text
            return ContrastiveSettings(**self.text.model_dump(), ultra_fine=self.ultra_fine)
        return multimodal.model_copy(update={"modality": self.modality})


@command(
    EXAMPLES,
    headings={
        "text": TRAINING,
        "warm_start": TRAINING,
        "contrast": OBJECTIVES,
        "ultra_fine": OBJECTIVES,
        **multimodal_headings("multimodal"),
        "beginning": MODEL,
        "modality": TRAINING,
        "baseline": MODEL,
        "cache_dtype": RUN,
    },
    former={"hidden": Former("modality_dropout"), "paper_start": Former("init", ("random", "lda"))},
    presets=presets("train-encoder"),
    writes=Writes("train-encoder"),
)
def main(settings: TrainEncoderSettings) -> None:
    """Train an entity encoder on cached frozen states: the last layer of the text encoder, or, with images,
    that and the layers that see the picture and bring both together.

    --modality text+image needs `seedset image-features`. Its four objectives can be switched off one by one.

    --contrast trains by mined lists besides: an epoch is a pass of entity prediction, then one of the
    contrast (--seed-text: of sentences with their query's seeds appended). `seedset build-index` then makes
    the contrast view, which --method retexpan+contrast reads, and the joint view in place of the mask view.

    Writes runs/train_encoder/RUN, or runs/train_contrast/RUN: the encoder, checkpoints, the loss curve,
    TensorBoard events (tensorboard --logdir WORKSPACE/runs/train_encoder). The same settings again go on
    where they were.
    """
    from engine.images.features import ImageFeatures
    from engine.training.contrast_lists import NEWEST, open_lists
    from jobs.steps.encoder_training import check_baseline, train

    started = time.monotonic()
    if settings.baseline:
        check_baseline(ImageFeatures.open(Workspace.open(settings.workspace)), settings.baseline)
    training, workspace = settings.training(), Workspace.open(settings.workspace)
    mined = isinstance(training, ContrastiveSettings)
    lists = open_lists(workspace, settings.contrast or NEWEST) if mined else None
    summary = train(
        workspace,
        training,
        settings.model,
        settings.processes.workers,
        settings.processes.gpu,
        settings.cache_dtype,
        settings.restart,
        settings.checkpoint_seconds,
        lists=lists,
        warm_start=settings.warm_start,
    )
    console.result(
        run=summary["run"],
        steps=summary["steps"],
        sentences=summary["sentences"],
        loss=f"{summary['loss']:.4f}",
        sentences_per_second=summary["sentences_per_second"],
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    main.run()
