"""Measure what a worker of a ZeRO-3 training takes, against the arithmetic that `pretrain-lm --plan` shows.

A LLaMA with random weights is opened so that no worker holds it whole, and trained for a few steps on random
tokens, in several processes on this machine's processor. The peak is what a process has resident, above what
it had with its libraries alone; glibc returns freed blocks at once, so that holes in its heap do not count.

    python -m benchmarks.lm_memory                                   (26 GB of memory)
    python -m benchmarks.lm_memory --hidden 1024 --inner 2752 --layers 16
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as mp
import typer

from benchmarks.peak_memory import fixed_threshold, measured_peak
from benchmarks.report import report
from engine.corpus.blocks.format import TokenBlocks
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import Origin, config_of, open_model, shape_of
from engine.training.memory import worker_memory
from engine.training.settings import LmSettings
from engine.training.trainer import Worker
from jobs import console

EXAMPLES = """
  python -m benchmarks.lm_memory
  python -m benchmarks.lm_memory --hidden 1024 --inner 2752 --layers 16 --weights bfloat16
  python -m benchmarks.lm_memory --hidden 1024 --layers 16 --offload nvme --offload-folder /mnt/nvme
"""

VOCABULARY, BLOCK, ROWS = 32_000, 128, 1
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1}


def main(
    hidden: int = typer.Option(2048, help="Width of the states."),
    inner: int = typer.Option(5504, help="Width of the feed-forward layers."),
    layers: int = typer.Option(20, help="Layers; with the other defaults 1.14 billion parameters."),
    workers: int = typer.Option(2, help="Processes."),
    steps: int = typer.Option(3, help="Steps."),
    weights: str = typer.Option("float32", help="float32 or bfloat16."),
    offload: str = typer.Option("none", help="none, or nvme: the optimiser's state on a disk."),
    offload_folder: Path | None = typer.Option(None, help="With --offload nvme: a folder on that disk."),
    share: float = typer.Option(0.15, help="Part by which the peak may be above the arithmetic."),
) -> None:
    """Train a random LLaMA for a few steps and compare memory with the arithmetic."""
    sizes = {"hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers}
    layout = {"zero_stage": 3, "weights": weights, "activation_checkpointing": True, "offload": offload}
    layout["offload_folder"] = str(offload_folder) if offload_folder else None
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        mp.spawn(_work, (workers, folder, sizes, layout, steps), nprocs=workers)
        seconds = time.perf_counter() - started
        found = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(workers)]
    shape = shape_of(config_of(_origin(sizes)))
    memory = worker_memory(shape, Layout.model_validate(layout), workers, ROWS, BLOCK, narrow=False)
    opened = max(one["opened"] for one in found)
    peak = max(one["opened_left"] + one["stepped"] for one in found)
    rows = [
        ["a worker's share of the weights", f"{memory.weights / 1e9:.2f}", ""],
        ["while it is opened", f"{4 * shape.parameters / workers / 1e9:.2f}", f"{opened / 1e9:.2f}"],
        ["the peak of a step", f"{memory.total / 1e9:.2f}", f"{peak / 1e9:.2f}"],
        ["on the disk", f"{memory.disk / 1e9:.2f}", ""],
        ["the whole model", f"{4 * shape.parameters / 1e9:.2f}", ""],
    ]
    title = f"{shape.parameters / 1e6:,.0f}M parameters, {workers} workers, {steps} steps, {seconds:.0f} s"
    report(
        f"{title}: GB of a worker",
        ["what", "arithmetic", "measured"],
        rows,
        name="lm_memory",
        ratio=memory.total / peak,
        floor_ratio=peak / memory.total,
        holds=peak <= (1 + share) * memory.total,
        parameters=shape.parameters,
        opened_gb=round(opened / 1e9, 3),
        peak_gb=round(peak / 1e9, 3),
        arithmetic_gb=round(memory.total / 1e9, 3),
        disk_gb=round(memory.disk / 1e9, 3),
        losses=[round(loss, 4) for loss in found[0]["losses"]],
    )


def _origin(sizes: dict[str, int]) -> Origin:
    config: dict[str, Any] = {"model_type": "llama", "vocab_size": VOCABULARY, "num_attention_heads": 8}
    return Origin(name="random", config=config | {"max_position_embeddings": BLOCK} | sizes)


def _work(
    rank: int, world: int, folder: str, sizes: dict[str, int], layout: dict[str, Any], steps: int
) -> None:
    torch.set_num_threads(1)
    fixed_threshold()
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    chosen, worker = Layout.model_validate(layout), Worker(rank, world)
    _train(open_model(_origin(SMALL), 0, chosen), 1, chosen, worker)  # what the libraries take by themselves
    with measured_peak() as opened:
        model = open_model(_origin(sizes), 0, chosen)
    left = sum(p.ds_tensor.numel() * p.ds_tensor.element_size() for p in model.parameters())
    with measured_peak() as stepped:
        losses = _train(model, steps, chosen, worker)
    found = {"opened": opened[0], "opened_left": left, "stepped": stepped[0], "losses": losses}
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _train(model: Any, steps: int, layout: Layout, worker: Worker) -> list[float]:
    drawn = np.random.default_rng(0).integers(2, VOCABULARY, (worker.world * steps, BLOCK)).astype(np.uint16)
    settings = LmSettings(epochs=1, batch_size=worker.world * ROWS, precision="float32", learning_rate=1e-4)
    blocks = TokenBlocks([drawn])
    training = LmTraining(model, blocks, TokenBlocks([drawn[:1]]), settings, layout, worker)
    return [step.loss for step in training.run()]


if __name__ == "__main__":
    console.run(main, EXAMPLES)
