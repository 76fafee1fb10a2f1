"""Make npy files that are filled through a memory map, so that no process holds what they hold."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.storage.local_files import reserve

SMALL = 1 << 26
"""Bytes of a :func:`scratch_array` up to which it is held in memory."""


def scratch_array(folder: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return zeros, to be filled in any order: of more than :data:`SMALL`, a map of a file of this process.

    The system writes pages of the map out when it needs the memory. The file has no name any more, so that
    nothing of it stays behind.

    Args:
        folder: of this machine, made if it is not there.
        dtype: of the numbers.
        shape: of the array.

    Raises:
        OSError: the disk has no room for it.
    """
    if int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize <= SMALL:
        return np.zeros(shape, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        return new_array(Path(own) / "scratch.npy", dtype, shape).view(np.ndarray)


def new_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Write an npy file of zeros and return its map, to be filled in any order.

    Its space is reserved first, as a full disk would end the process without a word.

    Args:
        path: of the file, whatever its name ends in.
        dtype: of the numbers.
        shape: of the array.

    Raises:
        OSError: the disk has no room for it.
    """
    kind = np.dtype(dtype)
    # Opened here, as npy's own opener would append ".npy" to the name.
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(file, header)
        start = file.tell()
        reserve(file, start + int(np.prod(shape, dtype=np.int64)) * kind.itemsize)
    if not all(shape):
        return np.empty(shape, kind)  # nothing can be mapped
    return np.memmap(path, kind, "r+", start, shape)


def flush(*arrays: npt.NDArray[Any]) -> None:
    """Write out what was put into maps of :func:`new_array`: a network share may keep it for a while."""
    for array in arrays:
        if isinstance(array, np.memmap):
            array.flush()
