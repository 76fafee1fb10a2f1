"""The objectives on several gloo processes: what ``test_gather`` starts and compares with one."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

from engine.encoders.multimodal import MultimodalConfig, MultimodalEncoder, Predictor
from engine.encoders.text import TextEncoder
from engine.training.objectives import Objectives, Schedule

TOTAL = 6
"""Contexts of the batch: over four workers the last two have one each, the first two have two."""


def gradients(rank: int = 0, world: int = 1) -> dict[str, torch.Tensor]:
    """Return loss and gradients of one worker's part of the batch."""
    torch.manual_seed(0)
    sizes = BertConfig(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)
    text = TextEncoder(BertModel(sizes, add_pooling_layer=False))
    config = MultimodalConfig(
        n_patches=2, vision_dim=3, visual_layers=1, cross_layers=1, head_dim=4, dropout=0, identity=False
    )
    predictor = Predictor(MultimodalEncoder(text.last, config), 5)
    module = Objectives(predictor, Schedule(clusters=3), rank, world).train()
    states, features = torch.randn(TOTAL, 5, 8), torch.randn(TOTAL, 2, 3)
    lengths, mask = torch.tensor([5, 4, 5, 3, 4, 5]), torch.tensor([1, 2, 3, 1, 1, 2])
    seen, entities = torch.tensor([1, 1, 0, 1, 1, 1]).bool(), torch.tensor([0, 1, 2, 3, 4, 0])
    teacher = torch.randn(TOTAL, 5)
    own = slice(rank, None, world)
    context = tuple(t[own] for t in (states, lengths, mask, features, seen))
    loss = module(context, entities[own], teacher[own], TOTAL)
    loss.backward()
    named = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
    return {"loss": loss.detach()} | named


def worker(rank: int, world: int, folder: str) -> None:
    """Be one of ``world`` processes; the first writes the mean over workers."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/store", world)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=world)
    found = gradients(rank, world)
    for tensor in found.values():
        torch.distributed.all_reduce(tensor)
        tensor /= world
    if rank == 0:
        save_file(found, Path(folder) / "mean.safetensors")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
