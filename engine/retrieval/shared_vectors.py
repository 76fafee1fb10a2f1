"""Share the vectors of an index among the processes of a machine: one copy in memory, however many read it.

In a FAISS file the vectors begin at an odd byte, and no product takes them from there: mapped in place they
were copied for each query (4 times as slow, and more memory than was saved). So they are laid down once in
the machine's cache, where a NumPy file begins them at a multiple of 64, and are mapped from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import StorageError
from engine.storage.local_files import in_one_step, reserve
from engine.storage.parts import content_key
from engine.storage.reading_order import in_order
from engine.storage.store import machine_cache

logger = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]

FOLDER = "vectors"
"""Folder of the machine's cache."""

SHARED_BYTES = 16 << 20
"""Smaller indexes are read by each process: a file more would cost more than their memory."""


def shared_vectors(path: Path, read: Callable[[Path, bool], Vectors]) -> Vectors:
    """Return the vectors of a local index, [N, D], read-only; equal to those that are read.

    Where the cache cannot be written, they are read into this process' memory.

    Args:
        path: the index, which never changes.
        read: reads its vectors: with True mapped, so that only what is looked at takes memory.
    """
    about = path.stat()
    if about.st_size < SHARED_BYTES:
        return read(path, False)
    source = read(path, True)
    key = content_key(str(path.resolve()), f"{about.st_size} {about.st_mtime_ns}")
    copy = machine_cache() / FOLDER / f"{key}.npy"
    if (found := _mapped(copy, source)) is not None:
        return found
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with in_one_step(copy) as temporary, temporary.open("wb") as file:
            reserve(file, source.nbytes + 128)
            with in_order(source):
                np.save(file, source)
    except (OSError, StorageError) as error:
        logger.warning("%s: vectors cannot be shared, each process reads its own (%s)", copy, error)
        return read(path, False)
    found = _mapped(copy, source)
    return read(path, False) if found is None else found


def _mapped(copy: Path, source: Vectors) -> Vectors | None:
    """Map a copy; None where there is none of this form."""
    try:
        found: Vectors = np.load(copy, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    return np.asarray(found) if (found.dtype, found.shape) == (source.dtype, source.shape) else None
