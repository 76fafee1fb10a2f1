"""What one worker of a language model's training does, whoever started it on Ray Train.

The first worker also follows the run: TensorBoard events, progress, and in the end the model.
"""

from __future__ import annotations

import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.corpus.blocks.format import Blocks
from engine.generation.tokenizers import load_tokenizer
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from engine.training.lm import Layout, LmSettings, LmTraining, StepReport
from engine.training.lm_models import Origin, open_model, stored_dtype, write_model
from jobs.workers.trainer import Events, agree

JOB = "pretrain_lm"


@dataclass(frozen=True)
class Run:
    """What every worker is told."""

    workspace: str
    name: str
    origin: Origin
    tokenizer: str
    blocks: Blocks
    settings: LmSettings
    layout: Layout
    gpu: bool
    cores: float
    """Of a worker."""
    checkpoint_seconds: float


def work(config: dict[str, Any]) -> None:
    """One worker: open or resume the training, take the steps, report, and write the model."""
    from ray import train
    from ray.train.torch import get_device

    run: Run = config["run"]
    context = train.get_context()
    rank, world = context.get_world_rank(), context.get_world_size()
    device = get_device() if run.gpu else torch.device("cpu")
    torch.set_num_threads(max(1, int(run.cores)))
    tokenizer = load_tokenizer(run.tokenizer)
    data, held = run.blocks.open(tokenizer.bos_token_id)
    model = open_model(run.origin, run.settings.seed)
    where = (run.settings, run.layout, rank, world, device)
    if checkpoint := train.get_checkpoint():
        with checkpoint.as_directory() as place:
            training = LmTraining(model, data, held, *where, checkpoint=Path(place))
    else:
        training = LmTraining(model, data, held, *where)
    folder = Workspace.open(run.workspace).runs(JOB) / run.name
    follow = _Follow(run, folder, training, config["progress"]) if rank == 0 else None
    saved = time.monotonic()
    for step in training.run():
        if follow:
            follow(step)
        # Every worker must report together; the first one's clock decides.
        due = agree(time.monotonic() - saved > run.checkpoint_seconds, world, device)
        if due or step.step == training.total_steps:
            _report(step, training)
            saved = time.monotonic()  # after the report, which may take longer than the time between
    staged = (folder / "lm").staging() if rank == 0 else Path()
    write_model(model, tokenizer, staged, stored_dtype(run.origin), rank == 0)
    memory = peak_memory(world, device)
    if follow:
        follow.finish(staged, memory)


def _report(step: StepReport, training: LmTraining) -> None:
    """Hand metrics to Ray Train, and from the first worker the checkpoint, which all of them gather."""
    from ray import train

    metrics = {"step": step.step, "epoch": step.epoch, "loss": step.loss}
    with tempfile.TemporaryDirectory() as folder:
        training.save(Path(folder))
        first = training.rank == 0
        train.report(metrics, checkpoint=train.Checkpoint.from_directory(folder) if first else None)


def peak_memory(world: int, device: torch.device) -> dict[str, int]:
    """Return the most that a worker's process took, and that its GPU took, in MiB, over all workers."""
    gpu = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    used = torch.tensor([resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, gpu >> 20], device=device)
    if world > 1:
        torch.distributed.all_reduce(used, torch.distributed.ReduceOp.MAX)
    process, card = used.tolist()
    return {"process": process} | ({"gpu": card} if gpu else {})


class _Follow:
    """What the first worker does besides training: TensorBoard events, progress, the finished model."""

    def __init__(self, run: Run, folder: Store, training: LmTraining, progress: Any) -> None:
        self._run, self._folder, self._training, self._progress = run, folder, training, progress
        self._events = Events(folder)
        self._started: float | None = None
        self._shown = self._seconds = 0.0
        self._tokens = 0
        self._resumed_at = training.step
        progress.set.remote(training.step, training.total_steps, "held-out perplexity before training")

    def __call__(self, step: StepReport) -> None:
        training = self._training
        self._events.add(step.step, train_loss=step.loss, train_learning_rate=step.learning_rate)
        if step.step % training.steps_per_epoch == 0:
            self._events.add(step.step, heldout_perplexity=training.perplexities[-1])
        self._tokens += step.tokens
        self._seconds += step.seconds
        now = time.monotonic()
        if now - self._shown < 0.5 and step.step != training.total_steps:
            return
        self._shown = now
        self._events.add(step.step, train_tokens_per_second=self._rate)
        note = f"epoch {step.epoch + 1} loss {step.loss:.3f} {self._rate:.0f} tokens/s"
        self._progress.set.remote(step.step, training.total_steps, note)

    @property
    def _rate(self) -> float:
        return self._tokens / self._seconds if self._seconds else 0.0

    def finish(self, staged: Path, memory: dict[str, int]) -> None:
        """Publish the trained model, the loss curve and the events."""
        training, run = self._training, self._run
        summary = {
            "run": run.name,
            "model": run.origin.name,
            "tokenizer": run.tokenizer,
            "blocks_key": run.blocks.key,
            "parameters": sum(_numel(p) for p in training.model.parameters()),
            "steps": training.step,
            "resumed_at": self._resumed_at,
            "epochs": training.settings.epochs,
            "blocks": len(training.data),
            "tokens": run.blocks.manifest.total("tokens"),
            "loss": training.losses[-1] if training.losses else None,
            "losses": training.losses,
            "perplexity_before": training.perplexities[0],
            "perplexity_after": training.perplexities[-1],
            "perplexities": training.perplexities,
            "tokens_per_second": round(self._rate, 1),
            "seconds": round(self._seconds, 1),
            "peak_memory_mib": memory,
            "workers": training.world,
            "precision": str(training.compute).removeprefix("torch."),
            "layout": training.layout.model_dump(),
            "settings": training.settings.model_dump(),
        }
        (self._folder / "lm").publish_folder(staged, last="config.json")
        self._events.publish()
        (self._folder / "summary.json").write_bytes(json.dumps(summary).encode())


def _numel(parameter: Any) -> int:
    """Return a parameter's elements; at ZeRO stage 3 this worker holds none of them."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))
