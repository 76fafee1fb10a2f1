"""Read some rows of npy files in a bucket, in place of copying the files.

A request of a bucket takes about as long as the transfer of a megabyte, so that what lies closer together is
read in one, and several requests are under way at once.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import StorageError
from engine.storage.object_copies import found_copy
from engine.storage.store import Store, machine_cache

GAP = 1 << 18
"""Bytes between two ranges up to which both are read by one request."""
LARGEST = 1 << 24
"""Bytes of a request beyond which it takes up no further range."""
REQUESTS = 8
"""Requests that are under way at once."""
_HEADER = 4096
"""Bytes in which the header of an npy file ends."""


class NpyRows:
    """An npy file of which some rows are read, by their numbers.

    Args:
        file: whose content does not change while it is read.
    """

    def __init__(self, file: Store) -> None:
        self.file = file

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape, type of the numbers, and where these begin."""
        stream = io.BytesIO(self.file.read_range(0, _HEADER))
        try:
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, fortran, dtype = read[np.lib.format.read_magic(stream)](stream)
        except (ValueError, KeyError) as error:
            raise StorageError(f"{self.file.uri}: no npy file ({error}); make it again") from None
        if fortran or dtype.hasobject:
            raise StorageError(f"{self.file.uri}: holds no rows of numbers after one another; make it again")
        return shape, dtype, stream.tell()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the whole array."""
        return self._header[0]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the numbers."""
        return self._header[1]

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows from ``start`` to before ``stop``.

        Raises:
            StorageError: the file has no such rows.
        """
        shape, dtype, begin = self._header
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        found = self.file.read_range(begin + start * row, begin + stop * row)
        if len(found) != (stop - start) * row:
            raise StorageError(f"{self.file.uri}: ends before row {stop}; make it again")
        return np.frombuffer(found, dtype).reshape(stop - start, *shape[1:])


def open_rows(file: Store) -> npt.NDArray[Any] | NpyRows:
    """Map an npy file that is on this machine, or copied to it; of another one rows can be read."""
    path = Path(file.path) if file.is_local else found_copy(file.path, machine_cache())
    return NpyRows(file) if path is None else mapped_rows(path)


def mapped_rows(path: Path) -> npt.NDArray[Any]:
    """Map an npy file; as a plain array, whose slices are quicker than a memmap's."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


class Span(NamedTuple):
    """Rows of a file, from ``start`` to before ``stop``."""

    source: NpyRows
    start: int
    stop: int


def read_spans(spans: Sequence[Span]) -> list[npt.NDArray[Any]]:
    """Return the rows of each span; what lies close together in a file is read by one request."""
    requests = _requests(spans)
    found: list[npt.NDArray[Any]] = [np.empty(0)] * len(spans)

    def read(places: list[int]) -> None:
        source, start = spans[places[0]].source, spans[places[0]].start
        rows = source.read(start, max(spans[place].stop for place in places))
        for place in places:
            found[place] = rows[spans[place].start - start : spans[place].stop - start]

    if len(requests) == 1:
        read(requests[0])
    elif requests:
        with ThreadPoolExecutor(min(REQUESTS, len(requests))) as pool:
            list(pool.map(read, requests))
    return found


def _requests(spans: Sequence[Span]) -> list[list[int]]:
    """Return the places of the spans that are read together, those of each request in order."""
    of_file: dict[NpyRows, list[int]] = defaultdict(list)
    for place, span in enumerate(spans):
        of_file[span.source].append(place)
    found: list[list[int]] = []
    for source, places in of_file.items():
        row = source.dtype.itemsize * int(np.prod(source.shape[1:], dtype=np.int64))
        begin, end = 0, None
        for place in sorted(places, key=lambda one: spans[one].start):
            _, start, stop = spans[place]
            if end is None or (start - end) * row > GAP or (stop - begin) * row > LARGEST:
                found.append([])
                begin, end = start, stop
            found[-1].append(place)
            end = max(end, stop)
    return found
