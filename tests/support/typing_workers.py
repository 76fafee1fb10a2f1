"""A training of a tiny typing model on any number of workers: ``test_lm_workers`` compares two with one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from engine.training.settings import TypingSettings
from engine.training.trainer import Worker
from engine.training.typing import TypingTraining
from engine.typing.mentions import Mention, TypedMention
from engine.typing.model import TypingModel

ENCODER = "typing-encoder"
"""Folder of the encoder that the workers begin with."""
SETTINGS = TypingSettings(epochs=3, batch_size=5, learning_rate=5e-3, precision="float32", dropout=0)
MENTIONS = [
    TypedMention(
        str(i),
        Mention("a b c d" * (i % 3), "Oslo" if i % 2 else "Ann", "e f" * (i % 4)),
        ("city",) if i % 2 else ("person",),
        added=("place",) if i % 3 == 1 else (),
        uncertain=("place",) if i % 3 == 2 else (),
    )
    for i in range(13)
]
"""Batches of 5, 4 and 4: two workers have 3 and 2, or 2 each."""


def train_typing(folder: Path, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Return the curve, this worker's mentions by step, and the labels' vectors after the last."""
    model = TypingModel.begin(str(folder / ENCODER), ["person", "city", "place"], seed=1)
    torch.manual_seed(0)
    run = TypingTraining(model, MENTIONS, SETTINGS, Worker(rank, world))
    rows = [report.rows.tolist() for report in run.run()]
    vectors = model.network.label_vectors().detach()
    return {"losses": run.losses, "rows": rows, "labels": vectors.flatten().tolist()}
