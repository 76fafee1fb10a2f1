"""Hash texts, so that many can be told apart by number."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]


def hashes_of(texts: Iterable[str]) -> Hashes:
    """Return a 64-bit hash of each text, uint64 [n]: of ten million, two agree with a probability of 3e-6."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def of_range(ascending: npt.NDArray[np.uint64], place: int, bits: int) -> slice:
    """Return where the hashes of a range are, those whose highest ``bits`` are ``place``.

    Args:
        ascending: hashes, which may be mapped: a few of them are looked at.
        place: from 0 to 2 ** bits - 1.
        bits: 0: one range holds all.
    """
    width = 64 - bits
    return slice(bisect_left(ascending, place << width), bisect_left(ascending, (place + 1) << width))
