"""Model input for tests without a corpus: random tokens, real shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from engine.models.text import TextEncoder
from engine.training.cache import CachedStates, fill_part
from engine.training.input_rows import InputRows


def random_rows(n: int, n_entities: int, seed: int = 0, shortest: int = 5, longest: int = 24) -> InputRows:
    """Return n sentences of random word pieces, one of them the mask token."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ids = rng.integers(1000, 20_000, offsets[-1]).astype(np.int32)
    mask_index = (rng.random(n) * (lengths - 2)).astype(np.int64) + 1
    ids[offsets[:-1]], ids[offsets[1:] - 1], ids[offsets[:-1] + mask_index] = 101, 102, 103
    return InputRows(ids, offsets, mask_index, rng.integers(0, n_entities, n))


def cached(encoder: TextEncoder, rows: InputRows, folder: Path, dtype: torch.dtype) -> CachedStates:
    """Fill a cache with the rows' frozen states and open it."""
    target = folder / "part-00000.npy"
    fill_part(encoder, rows, target, dtype, torch.device("cpu"))
    return CachedStates([rows], [target])
