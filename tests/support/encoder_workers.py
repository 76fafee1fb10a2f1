"""A training of a tiny encoder, on any number of workers that read their own parts of its states alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from engine.corpus.inputs.format import INPUT_SCHEMA, Inputs
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.training.cache import CachedStates, FrozenCache, InputRows, fill_part
from engine.training.settings import EncoderSettings
from engine.training.state_shards import StateShard, parts_of_workers
from engine.training.text import EncoderTraining
from engine.training.trainer import Worker
from tests.support.encoders import random_encoder
from tests.support.sentences import random_rows

N_ENTITIES, ROWS = 9, (7, 3, 9, 4, 6)
"""Sentences of each part."""
SETTINGS = EncoderSettings(epochs=2, batch_size=8, learning_rate=5e-3, precision="float32")


def filled_cache(folder: Path, encoder: TextEncoder) -> FrozenCache:
    """Write model input in parts, of random tokens with a sentence without words, and its frozen states."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, states = [], []
    for part, n in enumerate(ROWS):
        rows = random_rows(n, N_ENTITIES, seed=part, shortest=3 if part == 1 else 5)
        rows = InputRows(rows.ids % encoder.model.config.vocab_size, *list(vars(rows).values())[1:])
        path = folder / f"part-{part:05}"
        fill_part(encoder, rows, path.with_suffix(".npy"), torch.float32, torch.device("cpu"))
        ids = [rows.ids[rows.offsets[row] : rows.offsets[row + 1]].tolist() for row in range(n)]
        columns = [rows.entity_id, np.arange(n), ids, rows.mask_index]
        arrays = [pa.array(column, one.type) for column, one in zip(columns, INPUT_SCHEMA, strict=True)]
        pq.write_table(pa.table(arrays, INPUT_SCHEMA), path.with_suffix(".parquet"))
        parts.append(Store.open(path.with_suffix(".parquet")))
        states.append(Store.open(path.with_suffix(".npy")))
    manifest = SimpleNamespace(parts=dict(zip([one.name for one in parts], ROWS, strict=True)))
    return FrozenCache(Inputs("some", cast(Any, manifest), parts), states)


def opened(cache: FrozenCache, rank: int, world: int) -> CachedStates | StateShard:
    """Open a worker's parts, or all for one worker."""
    return StateShard(cache, parts_of_workers(ROWS, world)[rank]) if world > 1 else cache.open()


def train_encoder(folder: Path, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Return the curve, this worker's sentences by step, and the last layer's weights after the last."""
    encoder = random_encoder("bert")
    data = opened(filled_cache(folder / f"states-{world}-{rank}", encoder), rank, world)
    run = EncoderTraining(encoder, data, N_ENTITIES, SETTINGS, Worker(rank, world))
    rows = [report.rows.tolist() for report in run.run()]
    weights = torch.cat([p.detach().flatten() for p in run.module.parameters()])
    return {"losses": run.losses, "rows": rows, "weights": weights.tolist()}
