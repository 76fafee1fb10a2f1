"""Tell a file that is whole from one that was cut, by its form and without reading it all.

Under its final name a file of ours is whole, since it gets that name last. But copies that others make break
off (an upload of another program, a full disk, a restored backup), and then the name says nothing.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import MissingFileError
from engine.storage.store import Store

_MOST_HEADER = 100 << 20
"""Bytes of the header of a safetensors file at most, as that library has it."""


def sizes_of(folder: Path) -> dict[str, int]:
    """Return the sizes in bytes of a local folder's files, by their paths below it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def fault_in(folder: Store, sizes: dict[str, int] | None = None) -> str | None:
    """Return which file of a folder is not whole, and why; None if all are.

    Args:
        folder: local or in a bucket.
        sizes: from :func:`sizes_of`, of all that must be there; None: not known, and what is there is read.
    """
    for name, size in (sizes or {}).items():
        if fault := fault_of_size(folder / name, size):
            return f"{name} {fault}"
    files = [folder / name for name in sizes] if sizes is not None else folder.files()
    return next(_faults(folder, files), None)


def _faults(folder: Store, files: Iterable[Store]) -> Iterator[str]:
    for file in files:
        if fault := fault_of(file):
            yield f"{file.path.removeprefix(f'{folder.path}/')} {fault}"


def fault_of(file: Store) -> str | None:
    """Return why a file is not whole, None: it is, or its form (by its suffix) does not tell.

    Known are npy, safetensors, Parquet and JSON; only the last is read whole.
    """
    check = _CHECKS.get(f".{file.name.rpartition('.')[2]}")
    if check is None:
        return None
    try:
        return check(file)
    except MissingFileError:
        return "is missing"
    except (pa.ArrowException, ValueError, KeyError, TypeError, EOFError):
        return "is cut or damaged"


def _npy(file: Store) -> str | None:
    with file.open_input() as stream:
        head = io.BytesIO(stream.read(1 << 16))
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[np.lib.format.read_magic(head)](head)
    return fault_of_size(file, head.tell() + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize)


def safetensors_header(file: Store) -> tuple[dict[str, Any], int]:
    """Return the header of a safetensors file, its tensors by name and ``__metadata__``, and where it ends.

    Raises:
        ValueError: it has none that is whole.
    """
    with file.open_input() as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > _MOST_HEADER:
            raise ValueError("no header")
        return dict(json.loads(stream.read(length))), 8 + length


def _safetensors(file: Store) -> str | None:
    header, end = safetensors_header(file)
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return fault_of_size(file, end + max(ends, default=0))


def _parquet(file: Store) -> str | None:
    with file.open_input() as stream:
        pq.read_metadata(stream)
    return None


def _json(file: Store) -> str | None:
    json.loads(file.read_bytes())
    return None


def fault_of_size(file: Store, size: int) -> str | None:
    """Return why a file has not the size (bytes) that it should have, None: it has."""
    there = file.size()
    if there == size:
        return None
    return "is missing" if there < 0 else f"has {there} of {size} bytes"


_CHECKS: dict[str, Callable[[Store], str | None]] = {
    ".npy": _npy,
    ".safetensors": _safetensors,
    ".parquet": _parquet,
    ".json": _json,
}
