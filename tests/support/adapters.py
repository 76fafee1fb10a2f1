"""Train adapters on random blocks, and ask a model what it computes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lora import adapt
from engine.training.settings import LmSettings
from tests.support.token_blocks import random_blocks

SETTINGS = LmSettings(
    epochs=2, batch_size=5, learning_rate=3e-3, precision="float32", lora=True, lora_rank=3, lora_alpha=12
)
DATA, HELD = random_blocks(14), random_blocks(3, seed=1)


def train_adapters(
    model: Any,
    settings: LmSettings,
    layout: Layout,
    checkpoint: Path | None = None,
    save: Path | None = None,
) -> LmTraining:
    """Train adapters beside a model's layers; after four steps a checkpoint is saved, if a place is named."""
    adapt(model, settings, "it")
    run = LmTraining(model, DATA, HELD, settings, layout, checkpoint=checkpoint)
    for step in run.run():
        if save and step.step == 4:
            run.save(save)
    return run


def logits(model: Any) -> torch.Tensor:
    """Return what a model computes of three blocks, [3, tokens, vocabulary]."""
    ids, _ = DATA.gather(np.arange(3))
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=ids).logits
    return found
