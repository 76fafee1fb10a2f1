"""Train the text encoder by entity prediction: Ray Train starts the workers, DeepSpeed takes the steps.

First the frozen layers run once per sentence into a cache, then only the last layer and the head learn.
A run that was stopped goes on from its last checkpoint, also on another number of workers.
"""

from __future__ import annotations

import time
from typing import Any, Literal

import typer

from engine.errors import UserError
from engine.losses.combined import Schedule
from engine.storage.workspace import Workspace
from engine.training.multimodal import MultimodalSettings
from engine.training.text import EncoderSettings
from jobs import console, options
from jobs.steps.encoder_training import train

EXAMPLES = """
  python -m jobs.train_encoder --workspace work
  python -m jobs.train_encoder --workspace work --epochs 20 --learning-rate 4e-5 --batch-size 1024
  python -m jobs.train_encoder --workspace s3://bucket/work --workers 8 --gpu
  python -m jobs.train_encoder --workspace work --modality text+image
  python -m jobs.train_encoder --workspace work --modality text+image --no-clustering --no-distillation
"""


def main(
    workspace: str = typer.Option(..., help="Folder or s3:// prefix with model input."),
    model: str | None = typer.Option(
        None, help="Encoder to start from.  [default: the one that the input was made for]"
    ),
    modality: Literal["text", "text+image", "image"] = typer.Option(
        "text", help="text: the text encoder (RetExpan); with images: the multi-modal one (MultiExpan)."
    ),
    epochs: int | None = options.EPOCHS,
    batch_size: int | None = options.BATCH_SIZE,
    learning_rate: float | None = options.LEARNING_RATE,
    weight_decay: float = typer.Option(0.1, min=0, help="Not on biases and LayerNorm."),
    smoothing: float = typer.Option(0.075, min=0, max=0.99, help="Label smoothing."),
    seed: int = options.SEED,
    workers: int = options.WORKERS,
    gpu: bool = options.GPU,
    precision: Literal["auto", "float32", "bfloat16"] = typer.Option(
        "auto", help="Of the matrix products; auto: bfloat16 where the hardware is fast in it."
    ),
    cache_dtype: Literal["bfloat16", "float32"] = typer.Option("bfloat16", help="Of the cached states."),
    visual_layers: int = options.VISUAL_LAYERS,
    cross_layers: int = options.CROSS_LAYERS,
    inner: int = typer.Option(2, min=1, help="Inner size of their layers, times the states' size."),
    dropout: float = typer.Option(0.2, min=0, max=0.99, help="After the projection of patches."),
    hidden: float = typer.Option(
        0.3, min=0, max=0.5, help="Share of contexts shown without their text, and without their picture."
    ),
    paper_start: bool = typer.Option(
        False, "--paper-start", help="New layers begin at random, as the paper's; for large corpora."
    ),
    prediction: bool = typer.Option(True, help="Objective: masked entity prediction."),
    contrastive: bool = typer.Option(True, help="Objective: contrast with hard negatives."),
    clustering: bool = typer.Option(True, help="Objective: clustering."),
    distillation: bool = typer.Option(True, help="Objective: momentum distillation."),
    clusters: int = options.CLUSTERS,
    restart: bool = typer.Option(False, "--restart", help="Begin again, forget the checkpoints."),
) -> None:
    """Train an entity encoder on cached frozen states: the last layer of the text encoder, or, with images,
    that and the layers that see the picture and bring both together.

    --modality text+image needs jobs.image_features. Its four objectives can be switched off one by one.

    Writes runs/train_encoder/RUN: the encoder, checkpoints, the loss curve, TensorBoard events
    (tensorboard --logdir WORKSPACE/runs/train_encoder). The same settings again go on where they were.
    """
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    steps: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    steps |= {"precision": precision, "weight_decay": weight_decay, "seed": seed}
    settings: EncoderSettings | MultimodalSettings = EncoderSettings(smoothing=smoothing, **steps)
    if modality != "text":
        if not (prediction or contrastive or clustering):
            raise UserError("nothing would be learnt: leave prediction, contrast or clustering on")
        settings = MultimodalSettings(
            modality=modality,
            visual_layers=visual_layers,
            cross_layers=cross_layers,
            inner=inner,
            dropout=dropout,
            hidden=hidden,
            summary=not paper_start,
            identity=not paper_start,
            schedule=Schedule(
                prediction=prediction,
                contrastive=contrastive,
                clustering=clustering,
                distillation=distillation,
                smoothing=smoothing,
                clusters=clusters,
            ),
            **steps,
        )
    started = time.monotonic()
    place = Workspace.open(workspace)
    summary = train(place, settings, model, workers, gpu, cache_dtype, restart)
    console.result(
        run=summary["run"],
        steps=summary["steps"],
        sentences=summary["sentences"],
        loss=f"{summary['loss']:.4f}",
        sentences_per_second=summary["sentences_per_second"],
        seconds=f"{time.monotonic() - started:.1f}",
    )


if __name__ == "__main__":
    console.run(main, EXAMPLES)
