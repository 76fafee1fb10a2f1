"""Read some rows of npy files in a bucket, in place of copying the files.

A request of a bucket takes about as long as the transfer of a megabyte, so that what lies closer together is
read in one, and several requests are under way at once.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import StorageError
from engine.storage.mapped import scratch_array
from engine.storage.object_copies import found_copy
from engine.storage.store import Store, machine_cache

GAP = 1 << 18
"""Bytes between two ranges up to which both are read by one request."""
LARGEST = 1 << 24
"""Bytes of a request beyond which it takes up no further range."""
BLOCK = 1 << 26
"""Bytes that are in memory while rows are copied."""
REQUESTS = 8
"""Requests that are under way at once."""
_HEADER = 4096
"""Bytes in which the header of an npy file ends."""


class NpyRows:
    """An npy file of which some rows are read, by their numbers.

    It is mapped where it is on this machine, or copied to it already. Nothing is asked before the first use.

    Args:
        file: whose content does not change while it is read.
    """

    def __init__(self, file: Store) -> None:
        self.file = file

    @cached_property
    def mapped(self) -> npt.NDArray[Any] | None:
        """The whole array, if it is on this machine."""
        file = self.file
        path = Path(file.path) if file.is_local else found_copy(file.path, machine_cache())
        return None if path is None else mapped_rows(path)

    @cached_property
    def _header(self) -> tuple[tuple[int, ...], np.dtype[Any], int]:
        """Shape, type of the numbers, and where these begin."""
        if self.mapped is not None:
            return self.mapped.shape, self.mapped.dtype, 0
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

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Return the rows from ``start`` to before ``stop``, by one request.

        Raises:
            StorageError: the file has no such rows.
        """
        shape, dtype, begin = self._header
        row = self.row_bytes
        found = self.file.read_range(begin + start * row, begin + stop * row)
        if len(found) != (stop - start) * row:
            raise StorageError(f"{self.file.uri}: ends before row {stop}; make it again")
        return np.frombuffer(found, dtype).reshape(stop - start, *shape[1:])


def mapped_rows(path: Path) -> npt.NDArray[Any]:
    """Map an npy file; as a plain array, whose slices are quicker than a memmap's."""
    return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


class HeldRows:
    """Some rows of an npy file, copied to this machine into a file of this process.

    Args:
        source: of the rows.
        rows: their numbers, ascending.
    """

    def __init__(self, source: NpyRows, rows: npt.NDArray[np.int64]) -> None:
        self.source, self._rows = source, rows
        self._held = scratch_array(machine_cache(), source.dtype, (len(rows), *source.shape[1:]))
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        spans = [Span(source, int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]
        place, step = 0, max(1, BLOCK // max(1, source.row_bytes))
        for some in _blocks(spans, step):
            found = np.concatenate(read_spans(some))
            self._held[place : place + len(found)] = found
            place += len(found)

    def take(self, rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[Any]]:
        """Return which of some rows are held, and what these hold."""
        places = np.minimum(np.searchsorted(self._rows, rows), max(len(self._rows) - 1, 0))
        held = self._rows[places] == rows if len(self._rows) else np.zeros(len(rows), bool)
        return held, self._held[places[held]]


class Span(NamedTuple):
    """Rows of a file, from ``start`` to before ``stop``."""

    source: NpyRows
    start: int
    stop: int


def read_spans(spans: Sequence[Span]) -> list[npt.NDArray[Any]]:
    """Return the rows of each span; what lies close together in a file is read by one request."""
    found: list[npt.NDArray[Any]] = [np.empty(0)] * len(spans)
    distant = []
    for place, (source, start, stop) in enumerate(spans):
        if source.mapped is None:
            distant.append(place)
        else:
            found[place] = source.mapped[start:stop]
    requests = _requests(spans, distant)

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


def _blocks(spans: Iterable[Span], step: int) -> Iterator[list[Span]]:
    """Yield the spans, long ones cut, in blocks of so many rows at most."""
    block, left = [], step
    for source, start, stop in spans:
        while start < stop:
            end = min(stop, start + left)
            block.append(Span(source, start, end))
            left -= end - start
            start = end
            if not left:
                yield block
                block, left = [], step
    if block:
        yield block


def _requests(spans: Sequence[Span], distant: Iterable[int]) -> list[list[int]]:
    """Return the places of some spans that are read together, those of each request in order."""
    of_file: dict[NpyRows, list[int]] = defaultdict(list)
    for place in distant:
        of_file[spans[place].source].append(place)
    found: list[list[int]] = []
    for source, places in of_file.items():
        row = source.row_bytes
        begin, end = 0, None
        for place in sorted(places, key=lambda one: spans[one].start):
            _, start, stop = spans[place]
            if end is None or (start - end) * row > GAP or (stop - begin) * row > LARGEST:
                found.append([])
                begin, end = start, stop
            found[-1].append(place)
            end = max(end, stop)
    return found
