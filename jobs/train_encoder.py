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
from cluster.options import CommandSettings, Group
from engine.storage.workspace import Workspace
from engine.training.settings import EncoderSettings, Modality, MultimodalSettings
from jobs import console
from jobs.settings import CONTRAST_FLAGS, TrainingProcesses

EXAMPLES = """
  python -m jobs.train_encoder --workspace work
  python -m jobs.train_encoder --workspace work --epochs 20 --learning-rate 4e-5 --batch-size 1024
  python -m jobs.train_encoder --workspace s3://bucket/work --workers 8 --gpu
  python -m jobs.train_encoder --workspace work --modality text+image
  python -m jobs.train_encoder --workspace work --modality text+image --no-clustering --no-distillation
"""


class TrainEncoderSettings(CommandSettings):
    """What the command is told; ``--modality`` says which of the two kinds of training it is."""

    workspace: str = Field(description="Folder or s3:// prefix with model input.")
    model: str | None = Field(
        default=None,
        description="Encoder to start from.  [default: the one that the input was made for]",
    )
    modality: Modality = Field(
        default="text",
        description="text: the text encoder (RetExpan); with images: the multi-modal one (MultiExpan).",
    )
    text: EncoderSettings = EncoderSettings()
    multimodal: Annotated[
        MultimodalSettings,
        Group(label="with images", without=["modality", "summary", "identity"], flags=CONTRAST_FLAGS),
    ] = MultimodalSettings()
    paper_start: bool = Field(
        default=False, description="New layers begin at random, as the paper's; for large corpora."
    )
    processes: TrainingProcesses = TrainingProcesses()
    cache_dtype: Literal["bfloat16", "float32"] = Field(
        default="bfloat16", description="Of the cached states."
    )
    restart: bool = Field(default=False, description="Begin again, forget the checkpoints.")

    def training(self) -> EncoderSettings | MultimodalSettings:
        """Return the settings of the training that was asked for."""
        if self.modality == "text":
            return self.text
        fitted = not self.paper_start
        chosen = {"modality": self.modality, "summary": fitted, "identity": fitted}
        return self.multimodal.model_copy(update=chosen)


@command(EXAMPLES)
def main(settings: TrainEncoderSettings) -> None:
    """Train an entity encoder on cached frozen states: the last layer of the text encoder, or, with images,
    that and the layers that see the picture and bring both together.

    --modality text+image needs jobs.image_features. Its four objectives can be switched off one by one.

    Writes runs/train_encoder/RUN: the encoder, checkpoints, the loss curve, TensorBoard events
    (tensorboard --logdir WORKSPACE/runs/train_encoder). The same settings again go on where they were.
    """
    from jobs.steps.encoder_training import train

    started = time.monotonic()
    summary = train(
        Workspace.open(settings.workspace),
        settings.training(),
        settings.model,
        settings.processes.workers,
        settings.processes.gpu,
        settings.cache_dtype,
        settings.restart,
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
