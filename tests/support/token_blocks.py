"""Blocks of random tokens, as training sees them."""

from __future__ import annotations

import numpy as np

from engine.corpus.blocks.format import TokenBlocks, pad_of

WIDTH = 16
VOCABULARY = 300


def random_blocks(n: int = 20, seed: int = 0) -> TokenBlocks:
    """Return n blocks in two parts, the last block of each filled up."""
    random = np.random.default_rng(seed)
    parts = [random.integers(2, VOCABULARY, (size, WIDTH)).astype(np.uint16) for size in (n // 2, n - n // 2)]
    parts[0][-1, 5:] = parts[1][-1, 11:] = pad_of(parts[0].dtype)
    return TokenBlocks(parts)
