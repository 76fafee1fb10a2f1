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
from engine.corpus.inputs.masking import load_tokenizer
from engine.losses.settings import Schedule, UltraFineSettings
from engine.models.text import TextEncoder
from engine.storage.store import Store
from engine.training.cache import CachedStates, FrozenCache, fill_part, mapped_tokens
from engine.training.contrast import ContrastData, ContrastTraining
from engine.training.contrast_lists import ContrastLists
from engine.training.input_rows import InputRows
from engine.training.multimodal import MultimodalTraining
from engine.training.pairs import nearest_neighbors
from engine.training.settings import ContrastiveSettings, EncoderSettings, MultimodalSettings
from engine.training.state_shards import StateShard, parts_of_workers
from engine.training.text import EncoderTraining
from engine.training.trainer import Trainer, Worker
from tests.support.contexts import contexts_of
from tests.support.encoders import random_encoder
from tests.support.sentences import random_rows

N_ENTITIES, ROWS = 9, (7, 3, 9, 4, 6)
"""Sentences of each part."""
LISTS = [
    ContrastLists(name, *(np.array(ids, np.int32) for ids in (pos[:1], neg[:1], pos, neg, pos + neg)))
    for name, pos, neg in (("a", [0, 1, 2], [3, 4]), ("b", [5, 6], [0, 7]), ("c", [8, 2], [1, 5]))
]
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
    manifest = SimpleNamespace(parts=dict(zip([one.name for one in parts], ROWS, strict=True)), tokens=10_000)
    return FrozenCache(Inputs("some", cast(Any, manifest), parts), states)


def opened(cache: FrozenCache, rank: int, world: int) -> CachedStates:
    """Open a worker's parts, or all for one worker."""
    shares = parts_of_workers(ROWS, world)
    return StateShard(cache, shares, shares[rank]) if world > 1 else cache.open()


def train_encoder(folder: Path, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Return the curve, this worker's sentences by step, and the last layer's weights after the last."""
    encoder = random_encoder("bert")
    data = opened(filled_cache(folder / f"states-{world}-{rank}", encoder), rank, world)
    return trained(EncoderTraining(encoder, data, N_ENTITIES, SETTINGS, Worker(rank, world)))


def train_contrast(folder: Path, rank: int = 0, world: int = 1, seed_text: bool = True) -> dict[str, Any]:
    """Return the same of a training that contrasts mined lists, too, of sentences of all parts."""
    encoder, tokenizer = TextEncoder.load("embedded"), load_tokenizer("embedded")
    cache = filled_cache(folder / f"contrast-{world}-{rank}", encoder)
    tokens = mapped_tokens(cache.inputs) if seed_text else []
    data = ContrastData(opened(cache, rank, world), tokens, LISTS, [f"Name{n}" for n in range(N_ENTITIES)])
    sizes = UltraFineSettings(seed_text=seed_text, lists_per_batch=1, list_entities=2, entity_sentences=2)
    settings = ContrastiveSettings(**{**SETTINGS.model_dump(), "ultra_fine": sizes})
    return trained(ContrastTraining(encoder, tokenizer, data, N_ENTITIES, settings, Worker(rank, world)))


def train_multimodal(folder: Path, rank: int = 0, world: int = 1) -> dict[str, Any]:
    """Return the same of a multi-modal training, whose pairs are of all parts and are mined anew."""
    text = random_encoder("bert")
    states = opened(filled_cache(folder / f"multimodal-{world}-{rank}", text), rank, world)
    data = contexts_of(states, text, patches=3, channels=7)
    vectors = np.random.default_rng(0).normal(size=(N_ENTITIES, 4)).astype(np.float32)
    lists = nearest_neighbors(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    settings = MultimodalSettings(
        epochs=2,
        batch_size=8,
        visual_layers=1,
        cross_layers=1,
        dropout=0,
        precision="float32",
        schedule=Schedule(clusters=3, refresh_pairs=1),
    )
    return trained(MultimodalTraining(text, data, lists, settings, Worker(rank, world)))


def trained(run: Trainer) -> dict[str, Any]:
    """Take all steps; return the losses, this worker's rows of each step, and some weights."""
    rows = [report.rows.tolist() for report in run.run()]
    weights = torch.cat([p.detach().flatten() for p in run.module.parameters()])
    some = weights[:: 1 + len(weights) // 20_000]
    return {"losses": run.losses, "rows": rows, "weights": some.tolist()}
