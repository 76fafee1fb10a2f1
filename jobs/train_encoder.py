"""Train the text encoder by entity prediction: Ray Train starts the workers, DeepSpeed takes the steps.

First the frozen layers run once per sentence into a cache, then only the last layer and the head learn.
A run that was stopped goes on from its last checkpoint, also on another number of workers.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from cluster.commandline import command
from cluster.options import CommandSettings, Group
from cluster.session import session
from engine.corpus.inputs.format import open_inputs
from engine.errors import UserError
from engine.models.text import TextEncoder
from engine.storage.store import Store, machine_cache
from engine.storage.workspace import Workspace
from engine.training.contexts import Modality
from engine.training.encoder import EncoderSettings
from engine.training.multimodal import MultimodalSettings
from engine.vocabulary import Vocabulary
from jobs import console
from jobs.settings import CONTRAST_FLAGS, TrainingProcesses
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
