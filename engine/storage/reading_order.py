"""Tell the system in which order a mapped array will be read: it reads ahead by that, or does not.

What is not in memory is read when it is looked at. What is read from front to end had better be read ahead:
a page at a time, a disk of 1.4 GB/s gives 0.06. Single rows had better be read alone: where the system reads
8 MB around each (that is set for a disk; 128 KiB is the usual), 3,000 rows of 9 GB cost nearly all of them.
`benchmarks.cold_vectors` measures both.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


class _Map(mmap.mmap):
    """A mapped file that knows how it is read where nothing is read in order."""

    between = mmap.MADV_NORMAL


def map_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the array that a file ends in, mapped and read-only, wherever it begins.

    Args:
        path: of a file that is not empty.
        dtype: of the numbers.
        shape: of the array.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with path.open("rb") as file:
        mapped = _Map(file.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, mapped, len(mapped) - size)


def read_singly(array: npt.NDArray[Any]) -> None:
    """Say that single rows of a mapped array will be looked up: nothing is read ahead from now on.

    Args:
        array: from :func:`map_array`, or a part of one; of another nothing is said.
    """
    if (mapped := _map_of(array)) is not None:
        mapped.between = mmap.MADV_RANDOM
        mapped.madvise(mapped.between)


@contextmanager
def in_order(array: npt.NDArray[Any]) -> Iterator[None]:
    """Say that a mapped array will be read from front to end while the block runs.

    Two blocks side by side may cost time, and nothing else: the first that ends takes back what it said.

    Args:
        array: from :func:`map_array`, or a part of one. Of another nothing is said: a matrix that all
            queries read is to stay in memory, and what is read in order is the first to leave it.
    """
    mapped = _map_of(array)
    if mapped is None:
        yield
        return
    mapped.madvise(mmap.MADV_SEQUENTIAL)
    try:
        yield
    finally:
        mapped.madvise(mapped.between)


def _map_of(array: npt.NDArray[Any]) -> _Map | None:
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner if isinstance(owner, _Map) else None
