"""One batch under all objectives and each on several gloo processes: what ``test_gather`` compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import distributed

from engine.losses.combined import Objectives
from engine.losses.distillation import teacher_of
from engine.losses.settings import PASSES, Schedule
from engine.models.multimodal import EntityPredictionModel, MultimodalEncoder
from engine.models.settings import MultimodalConfig
from engine.training.own_lists import mean_states
from engine.training.trainer import Worker
from tests.support.contexts import random_contexts
from tests.support.encoders import draw_weights, random_encoder

TOTAL, ENTITIES, PATCHES, CHANNELS = 8, 7, 3, 6


def losses_and_gradients(rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Return this worker's "loss" of its rows, and the gradient of every parameter by name.

    Of the sum of all objectives ("None …") and of each alone, by which each name begins.
    """
    text = random_encoder("bert")
    config = MultimodalConfig(
        n_patches=PATCHES, vision_dim=CHANNELS, visual_layers=1, cross_layers=1, dropout=0, identity=False
    )
    predictor = EntityPredictionModel(MultimodalEncoder(text.last, config), ENTITIES)
    teacher = teacher_of(predictor)
    draw_weights(teacher)
    module = Objectives(predictor, Schedule(clusters=3), rank, world).train()
    batch = (
        torch.randn(TOTAL, 9, text.dim),
        torch.tensor([9, 3, 5, 7, 8, 3, 6, 4]),
        torch.tensor([2, 1, 3, 1, 5, 1, 4, 2]),
        torch.randn(TOTAL, PATCHES, CHANNELS),
        torch.tensor([True, True, False, True, False, False, True, True]),
    )
    entities = torch.arange(TOTAL) % ENTITIES
    own = tuple(tensor[rank::world] for tensor in batch)
    _, told = teacher(own)
    found: dict[str, Any] = {}
    for only in (None, *PASSES):
        module.zero_grad()
        loss = module(own, entities[rank::world], told, torch.arange(TOTAL) % world, only)
        loss.backward()
        gradients = {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}
        found |= {f"{only} {name}": tensor for name, tensor in {"loss": loss.detach(), **gradients}.items()}
    return found


def states_of_entities(folder: Path, worker: Worker) -> torch.Tensor:
    """Return the mean states of a random model's entities; every worker has the same contexts."""
    text = random_encoder("bert")
    folder.mkdir(exist_ok=True)
    data = random_contexts(text, folder, n=200, entities=ENTITIES, patches=PATCHES, channels=CHANNELS)
    config = MultimodalConfig(
        n_patches=PATCHES, vision_dim=CHANNELS, visual_layers=1, cross_layers=1, identity=False
    )
    predictor = EntityPredictionModel(MultimodalEncoder(text.last, config), ENTITIES)
    return torch.from_numpy(mean_states(predictor, data, ENTITIES, "text+image", worker))


def worker(rank: int, world: int, folder: Path) -> None:
    """Be one of ``world`` processes; the first writes the means over all workers."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "store"), world)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = losses_and_gradients(rank, world)
    for tensor in found.values():
        distributed.all_reduce(tensor)
        tensor /= world
    found["states"] = states_of_entities(folder / str(rank), Worker(rank, world))
    if rank == 0:
        save_file({n: t.contiguous() for n, t in found.items()}, folder / "means.safetensors")
    distributed.barrier()
    distributed.destroy_process_group()
