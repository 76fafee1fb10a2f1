"""Trainings on several gloo processes, of a small GPT-2, a typing model and an encoder.

``test_lm_workers`` starts and compares them. Sizes are odd on purpose: no parameter divides among two
workers, nor does a batch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from benchmarks.peak_memory import fixed_threshold, measured_peak
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import Origin, config_of, is_shared, open_model, shape_of, write_model
from engine.training.lora import adapt
from engine.training.memory import worker_memory
from engine.training.settings import LmSettings
from engine.training.trainer import Worker
from tests.support.encoder_workers import train_contrast, train_encoder, train_multimodal
from tests.support.language_models import tiny_tokenizer
from tests.support.token_blocks import VOCABULARY, WIDTH, random_blocks
from tests.support.typing_workers import train_typing

SETTINGS = LmSettings(epochs=2, batch_size=5, learning_rate=3e-3, weight_decay=0.1, precision="float32")
DATA, HELD = random_blocks(14), random_blocks(3, seed=1)
STOP = 4
"""The step after which a run is taken to have been stopped; an epoch has 3."""

GPT2: dict[str, Any] = {"n_embd": 33, "n_layer": 2, "n_head": 3, "n_positions": 32, "vocab_size": VOCABULARY}
ADAPTERS = SETTINGS.model_copy(update={"lora": True, "lora_rank": 3})
NEW = Origin(name="gpt2", config={"model_type": "gpt2", **GPT2})

TrainingResult = dict[str, Any]


def train(
    stage: int,
    rank: int = 0,
    world: int = 1,
    resume: Path | None = None,
    save: Path | None = None,
    origin: Origin | None = None,
    weights: str = "float32",
    settings: LmSettings = SETTINGS,
    merged: Path | None = None,
) -> TrainingResult:
    """Run to the end, from a checkpoint if one is given; return the curves and this worker's blocks.

    With an origin the workers share its model from the first parameter on.
    """
    torch.manual_seed(0)
    layout = Layout.model_validate({"zero_stage": stage, "micro_batch": 2, "weights": weights})
    model = open_model(origin, 0, layout) if origin else GPT2LMHeadModel(GPT2Config(**GPT2))
    if origin:
        assert is_shared(model)
        assert all(not p.numel() for p in model.parameters()), "a worker holds its share alone"
    if settings.lora:
        adapt(model, settings, "it")
    run = LmTraining(model, DATA, HELD, settings, layout, Worker(rank, world), checkpoint=resume)
    blocks = []
    for step in run.run():
        blocks.append((step.step, step.rows.tolist()))
        if save and step.step == STOP:
            spoil_padding(run, rank)
            run.save(save)
    if merged:
        merged.mkdir(exist_ok=True)
        write_model(model, tiny_tokenizer(VOCABULARY), merged, torch.float32, rank == 0)
    return {"losses": run.losses, "perplexities": run.perplexities, "blocks": blocks}


def spoil_padding(run: LmTraining, rank: int) -> None:
    """Put NaN where the last share ends beyond its parameter: DeepSpeed leaves there what memory held."""
    for parameter in run.model.parameters():
        if (share := getattr(parameter, "ds_tensor", None)) is not None:
            share[max(0, parameter.ds_numel - rank * share.ds_numel) :] = torch.nan


def worker(rank: int, world: int, folder: Path) -> None:
    """Be one of ``world`` processes: train at every stage, and go on from a checkpoint of one worker."""
    torch.set_num_threads(1)
    fixed_threshold()
    store = torch.distributed.FileStore(str(folder / "store"), world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = {f"stage {s}": train(s, rank, world, save=folder / f"stage {s}") for s in (1, 2, 3)}
    for stage in (1, 3):
        found[f"resumed at {stage}"] = train(stage, rank, world, resume=folder / "alone")
    read = Origin(name=str(folder / "model"))
    found["begun shared"] = train(3, rank, world, origin=NEW, save=folder / "shared")
    found["read shared"] = train(3, rank, world, origin=read)
    found["resumed shared"] = train(3, rank, world, origin=read, resume=folder / "alone")
    adapted, merged = folder / "adapted", folder / "merged-2"
    found["adapted"] = train(3, rank, world, origin=read, settings=ADAPTERS, save=adapted, merged=merged)
    found["adapted at 1"] = train(1, rank, world, settings=ADAPTERS, save=folder / "adapted at 1")
    found["bfloat16"] = train(3, rank, world, origin=read, weights="bfloat16", save=folder / "narrow")
    found["resumed bfloat16"] = train(
        3, rank, world, origin=read, weights="bfloat16", resume=folder / "narrow"
    )
    found["memory"] = opened_and_stepped(rank, world)
    found["typing"] = train_typing(folder, rank, world)
    found["encoder"] = train_encoder(folder, rank, world)
    found["contrast"] = train_contrast(folder, rank, world)
    found["contrast of cached states"] = train_contrast(folder, rank, world, seed_text=False)
    found["multimodal"] = train_multimodal(folder, rank, world)
    (folder / f"worker-{rank}.json").write_text(json.dumps(found))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def opened_and_stepped(rank: int, world: int) -> dict[str, int]:
    """Return what a model of 25M parameters adds to a worker's peak: while it is opened, and with a step."""
    sizes = GPT2 | {"n_embd": 512, "n_layer": 8, "n_head": 8}
    origin = Origin(name="gpt2", config={"model_type": "gpt2", **sizes})
    layout, settings = Layout(zero_stage=3), SETTINGS.model_copy(update={"epochs": 1, "batch_size": 14})
    with measured_peak() as opening:
        model = open_model(origin, 0, layout)
    shape = shape_of(config_of(origin))
    with measured_peak() as stepping:
        run = LmTraining(model, DATA, HELD, settings, layout, Worker(rank, world))
        for _ in run.run():
            pass
    arithmetic = worker_memory(shape, layout, world, 7, WIDTH, narrow=False)
    return {
        "parameters": shape.parameters,
        "largest": shape.largest,
        "opened": opening[0],
        "stepped": stepping[0],
        "arithmetic": arithmetic.total,
        "held": held_between_steps(run),
        "shares": arithmetic.weights + arithmetic.gradients + arithmetic.moments + arithmetic.master,
    }


def held_between_steps(run: LmTraining) -> int:
    """Return the bytes of weights, gradients and optimiser's state that a worker holds."""
    partitioned = run.engine.optimizer
    tensors = [*partitioned.fp32_partitioned_groups_flat, partitioned.grad_partitions_flat_buffer]
    tensors += [p.ds_tensor for p in run.model.parameters()] + [p.data for p in run.model.parameters()]
    for state in partitioned.optimizer.state.values():
        tensors += [tensor for tensor in state.values() if torch.is_tensor(tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def seen(outcomes: list[TrainingResult], after: int, upto: int) -> list[int]:
    """Return the blocks that all workers of a run saw in some steps, sorted."""
    steps = [blocks for outcome in outcomes for step, blocks in outcome["blocks"] if after < step <= upto]
    return sorted(int(i) for i in np.concatenate(steps))
