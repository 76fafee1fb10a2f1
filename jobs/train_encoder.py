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
from engine.corpus.inputs import open_inputs
from engine.storage import Store, machine_cache
from engine.training.encoder import EncoderSettings
from engine.vocabulary import Vocabulary
from engine.workspace import Workspace
from jobs import console
from jobs.encoder_worker import JOB, Run, work
from jobs.frozen_cache import FrozenCache, frozen_cache
from jobs.training import check_gpu, cores_of_a_worker, finished

EXAMPLES = """
  python -m jobs.train_encoder --workspace work
  python -m jobs.train_encoder --workspace work --epochs 20 --learning-rate 4e-5 --batch-size 1024
  python -m jobs.train_encoder --workspace s3://bucket/work --workers 8 --gpu
"""


@dataclass(frozen=True)
class Trained:
    """A finished run: its name, the encoder's folder, the encoder that it began with, and its inputs."""

    name: str
    folder: Store
    model: str
    inputs_key: str


def trained_encoder(workspace: Workspace) -> Trained | None:
    """Return the encoder that was trained last, or None if none was."""
    pointer = workspace.runs(JOB) / "CURRENT"
    if not pointer.exists():
        return None
    run = workspace.runs(JOB) / pointer.read_bytes().decode().strip()
    summary = json.loads((run / "summary.json").read_bytes())
    return Trained(run.name, run / "encoder", summary["model"], summary["inputs"])


def train(
    workspace: Workspace,
    settings: EncoderSettings,
    model: str | None = None,
    workers: int = 1,
    gpu: bool = False,
    dtype: str = "bfloat16",
    restart: bool = False,
    checkpoint_seconds: float = 30,
) -> dict[str, Any]:
    """Train on the current inputs of a workspace and return the run's summary.

    Args:
        workspace: with inputs from ``jobs.preprocess``; receives ``runs/train_encoder/<name>``.
        settings: of the run; they and the inputs make its name.
        model: encoder to start from; default: the one whose tokenizer made the inputs.
        workers: training processes.
        gpu: one GPU a worker, NCCL and bfloat16; else gloo on the CPU.
        dtype: of the cached states.
        restart: forget the checkpoints of a run with the same name.
        checkpoint_seconds: time between checkpoints; one more is made at the end.
    """
    inputs = open_inputs(workspace)
    model = model or inputs.manifest.model
    with session():
        check_gpu(gpu)
        cache = frozen_cache(workspace, inputs, model, dtype)
        run = _describe(workspace, cache, model, settings, workers, gpu, checkpoint_seconds)
        folder = workspace.runs(JOB) / run.name
        summary = finished(work, run, folder, workers, run.cores, gpu, restart)
    (workspace.runs(JOB) / "CURRENT").write_bytes(run.name.encode())
    return summary


def _describe(
    workspace: Workspace,
    cache: FrozenCache,
    model: str,
    settings: EncoderSettings,
    workers: int,
    gpu: bool,
    checkpoint_seconds: float,
) -> Run:
    content = settings.model_dump_json() + cache.inputs.key + model
    name = f"{cache.inputs.key}-e{settings.epochs}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
    entities = Vocabulary.read(workspace.entities.local_copy(machine_cache()))
    return Run(
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


def main(
    workspace: str = typer.Option(..., help="Folder or s3:// prefix with model input."),
    model: str | None = typer.Option(
        None, help="Encoder to start from.  [default: the one that the input was made for]"
    ),
    epochs: int = typer.Option(12, min=1, help="Passes over all sentences."),
    batch_size: int = typer.Option(256, min=1, help="Sentences a step, over all workers."),
    learning_rate: float = typer.Option(2e-3, help="Peak of the one-cycle schedule."),
    weight_decay: float = typer.Option(0.1, min=0, help="Not on biases and LayerNorm."),
    smoothing: float = typer.Option(0.075, min=0, max=0.99, help="Label smoothing."),
    seed: int = typer.Option(13, help="Of the head's first weights and the order of sentences."),
    workers: int = typer.Option(1, min=1, help="Training processes."),
    gpu: bool = typer.Option(False, "--gpu", help="One GPU a worker (NCCL, bfloat16)."),
    precision: Literal["auto", "float32", "bfloat16"] = typer.Option(
        "auto", help="Of the matrix products; auto: bfloat16 where the hardware is fast in it."
    ),
    cache_dtype: Literal["bfloat16", "float32"] = typer.Option("bfloat16", help="Of the cached states."),
    restart: bool = typer.Option(False, "--restart", help="Begin again, forget the checkpoints."),
) -> None:
    """Train the last layer of the text encoder by entity prediction, on cached frozen states.

    Writes runs/train_encoder/RUN: the encoder, checkpoints, the loss curve, TensorBoard events
    (tensorboard --logdir WORKSPACE/runs/train_encoder). The same settings again go on where they were.
    """
    settings = EncoderSettings(
        precision=precision,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        smoothing=smoothing,
        seed=seed,
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
