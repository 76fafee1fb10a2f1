"""A small vision backbone for the sample, made here: nothing is downloaded.

A ResNet of transformers' own learns for some seconds to say what invented flags are made of (stripes,
crosses, stars, colours), from pictures as a photographer would take them. It never sees a real flag. What
it leaves is a model folder like any other, for ``seedset image-features --model FOLDER``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import ResNetConfig, ResNetModel
from transformers.utils import logging

from examples.invented import LABELS, invent, labels_of
from examples.photographs import photograph

SIDE = 64
"""Pixels a side of what the model takes."""
FLAGS = 1200
EPOCHS = 8
BATCH = 64
LEARNING_RATE = 4e-3

WIDTH = 96
"""Channels of the last map."""

SIZES = ResNetConfig(
    embedding_size=24, hidden_sizes=[24, 48, WIDTH], depths=[1, 1, 1], layer_type="basic", hidden_act="relu"
)
MEAN = STD = 0.5


def make_backbone(folder: Path, flags: int = FLAGS, epochs: int = EPOCHS, seed: int = 0) -> float:
    """Train a backbone on invented flags and write it as a model folder.

    Args:
        folder: receives ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``.
        flags: invented for it, a picture each.
        epochs: passes over them.
        seed: of the flags, the weights and the order.

    Returns:
        The mean loss of the last epoch: binary cross-entropy, 0.69 for a model that knows nothing.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ResNetModel(SIZES)
        pixels_N3SS, labels_NK = _examples(flags, seed)
        loss = _train(model, pixels_N3SS, labels_NK, epochs)
    logging.disable_progress_bar()
    model.save_pretrained(folder)
    given = {"image_mean": [MEAN] * 3, "image_std": [STD] * 3, "size": {"shortest_edge": SIDE}}
    (folder / "preprocessor_config.json").write_text(json.dumps(given), encoding="utf-8")
    return loss


def _examples(flags: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures, float32 [N, 3, S, S], and what is on them, [N, K]."""
    pixels = np.empty((flags, SIDE, SIDE, 3), np.uint8)
    labels = []
    for number in range(flags):
        flag = invent(number, seed)
        # The first picture of a flag is the flag alone; one in four is such a one.
        taken = photograph(flag, 1 + number % 4)
        pixels[number] = np.asarray(taken.resize((SIDE, SIDE), Image.Resampling.BILINEAR))
        labels.append(labels_of(flag))
    scaled = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    return scaled.contiguous(), torch.tensor(labels)


def _train(model: ResNetModel, pixels_N3SS: torch.Tensor, labels_NK: torch.Tensor, epochs: int) -> float:
    head = nn.Linear(WIDTH, len(LABELS))
    parameters = [*model.parameters(), *head.parameters()]
    steps = epochs * -(-len(labels_NK) // BATCH)
    optimizer = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=0.01)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    losses: list[float] = []
    model.train()
    for _ in range(epochs):
        losses = []
        for rows in torch.randperm(len(labels_NK)).split(BATCH):
            maps_BCHW = model(pixels_N3SS[rows]).last_hidden_state
            loss = F.binary_cross_entropy_with_logits(head(maps_BCHW.mean(dim=(2, 3))), labels_NK[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
            losses.append(float(loss.detach()))
    model.eval()
    return float(np.mean(losses))
