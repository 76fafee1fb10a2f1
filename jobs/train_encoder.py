"""Train the text encoder by entity prediction: Ray Train starts the workers, DeepSpeed takes the steps.

First the frozen layers run once per sentence into a cache, then only the last layer and the head learn.
A run that was stopped goes on from its last checkpoint, also on another number of workers.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any, Literal

import typer

from cluster.session import session
from engine.corpus.inputs.format import open_inputs
from engine.errors import UserError
from engine.losses.combined import Schedule
from engine.models.text import TextEncoder
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.contexts import Modality
from engine.training.multimodal import MultimodalSettings
from engine.training.text import EncoderSettings
from engine.vocabulary import Vocabulary
from jobs import console, options
from jobs.steps.frozen_cache import FrozenCache, frozen_cache
from jobs.steps.multimodal_data import expanded, open_contexts
from jobs.workers.encoder import JOB, MultimodalRun, Run, work
from jobs.workers.trainer import check_gpu, cores_of_a_worker, finished

EXAMPLES = """
  python -m jobs.train_encoder --workspace work
  python -m jobs.train_encoder --workspace work --epochs 20 --learning-rate 4e-5 --batch-size 1024
  python -m jobs.train_encoder --workspace s3://bucket/work --workers 8 --gpu
  python -m jobs.train_encoder --workspace work --modality text+image
  python -m jobs.train_encoder --workspace work --modality text+image --no-clustering --no-distillation
"""


@dataclass(frozen=True)
class Trained:
    """A finished run: its name, the encoder's folder, the encoder that it began with, and its inputs."""

    name: str
    folder: Store
    model: str
    inputs_key: str
    features: str | None = None
    """Key of the image features, of a multi-modal run."""
    modality: Modality = "text"
    """What the run was trained on, and so what is taken of a context."""


def trained_encoder(workspace: Workspace, job: str = JOB) -> Trained | None:
    """Return the encoder that a training of either kind trained last, or None if none was."""
    pointer = workspace.runs(job) / "CURRENT"
    if not pointer.exists():
        return None
    return trained_run(workspace.runs(job) / pointer.read_bytes().decode().strip())


def trained_run(run: Store) -> Trained:
    """Return the encoder of a finished run, given its folder."""
    summary = json.loads((run / "summary.json").read_bytes())
    return Trained(
        run.name,
        run / "encoder",
        summary["model"],
        summary["inputs"],
        summary.get("features"),
        summary["settings"].get("modality", "text"),
    )


def train(
    workspace: Workspace,
    settings: EncoderSettings | MultimodalSettings,
    model: str | None = None,
    workers: int = 1,
    gpu: bool = False,
    dtype: str = "bfloat16",
    restart: bool = False,
    checkpoint_seconds: float = 30,
    make_current: bool = True,
) -> dict[str, Any]:
    """Train on the current inputs of a workspace and return the run's summary.

    Args:
        workspace: with inputs from ``jobs.preprocess``; receives ``runs/train_encoder/<name>``.
        settings: of the run, which say what is trained; they and the inputs make its name.
        model: encoder to start from; default: the one whose tokenizer made the inputs.
        workers: training processes.
        gpu: one GPU a worker, NCCL and bfloat16; else gloo on the CPU.
        dtype: of the cached states.
        restart: forget the checkpoints of a run with the same name.
        checkpoint_seconds: time between checkpoints; one more is made at the end.
        make_current: let what reads the workspace's encoder read this one from now on.
    """
    inputs = open_inputs(workspace)
    model = model or inputs.manifest.model
    with session():
        check_gpu(gpu)
        cache = frozen_cache(workspace, inputs, model, dtype)
        run = _describe(workspace, cache, model, settings, workers, gpu, checkpoint_seconds)
        folder = workspace.runs(run.job) / run.name
        summary = finished(work, run, folder, workers, run.cores, gpu, restart)
    if make_current:
        (workspace.runs(run.job) / "CURRENT").write_bytes(run.name.encode())
    return summary


def _describe(
    workspace: Workspace,
    cache: FrozenCache,
    model: str,
    settings: EncoderSettings | MultimodalSettings,
    workers: int,
    gpu: bool,
    checkpoint_seconds: float,
) -> Run:
    data = None
    if isinstance(settings, MultimodalSettings):
        data = open_contexts(workspace, cache, None, TextEncoder.load(model), model)
    about = f"-{data.features.key}" if data else ""
    content = settings.model_dump_json() + cache.inputs.key + model + about
    name = f"{cache.inputs.key}-e{settings.epochs}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    entities = Vocabulary.read(workspace.entities.local_copy(machine_cache()))
    run = Run(
        workspace=workspace.root.uri,
        inputs=cache.inputs,
        states=cache.states,
        model=model,
        name=name,
        n_entities=len(entities),
        settings=settings,
        gpu=gpu,
        cores=cores_of_a_worker(workers),
        checkpoint_seconds=checkpoint_seconds,
    )
    if data is None or not isinstance(settings, MultimodalSettings):
        return run
    if not len(data.usable(settings.modality)):
        raise UserError(f"{workspace.root.uri}: no context has anything of --modality {settings.modality}")
    lists = expanded(workspace, data, len(entities), settings.modality)
    return MultimodalRun(**vars(run), features=data.features.key, lists=lists)


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
