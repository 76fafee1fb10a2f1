"""Read sentences and addresses of images from a bundle's file, those of the entities that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.storage.bundle import lost_file

SENTENCES = "sentences.parquet"
"""A bundle's file of sentences: the columns of mentions, sorted by entity. A bundle may have none."""

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class MentionSentence:
    """A sentence with its mention, characters ``start`` to ``end`` (exclusive), and an image's address."""

    text: str
    start: int
    end: int
    image: str | None


class SentenceFile:
    """A file of sentences with an index of which entities lie in which row group."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The metadata is shared by all readers; the file is opened anew by each, so threads do not meet.
        self._metadata = pq.read_metadata(path)
        every = map(self._metadata.row_group, range(self._metadata.num_row_groups))
        groups = [group.column(0) for group in every if group.num_rows]  # a file of nothing has an empty one
        self._first_G = np.array([g.statistics.min for g in groups], np.int64)
        self._last_G = np.array([g.statistics.max for g in groups], np.int64)

    def read(self, ids: Index, n: int) -> dict[int, list[MentionSentence]]:
        """Return up to n sentences of each entity (ascending ids), from the row groups that hold them."""
        begin = np.searchsorted(self._last_G, ids)
        end = np.searchsorted(self._first_G, ids, side="right")
        groups = sorted({group for b, e in zip(begin, end, strict=True) for group in range(b, e)})
        if not groups:
            return {}
        with self._opened() as file:
            table = file.read_row_groups(groups, use_threads=False)
        entity_R = table["entity_id"].to_numpy()
        place_R = np.arange(len(entity_R)) - np.searchsorted(entity_R, entity_R)
        rows = table.take(np.flatnonzero(np.isin(entity_R, ids) & (place_R < n))).to_pydict()
        found: dict[int, list[MentionSentence]] = {}
        columns = (rows[name] for name in ("entity_id", "sentence", "start", "end", "image"))
        for entity, *about in zip(*columns, strict=True):
            found.setdefault(entity, []).append(MentionSentence(*about))
        return found

    @contextmanager
    def _opened(self) -> Iterator[pq.ParquetFile]:
        """Open the file: read, not mapped, since a map of a file that is cut off ends the process.

        Raises:
            BundleError: it is not there any more, or cannot be read.
        """
        try:
            with pq.ParquetFile(self._path, metadata=self._metadata) as file:
                yield file
        except (OSError, pa.ArrowInvalid) as error:
            raise lost_file(self._path.parent.name, self._path.name, error) from None

    def images(self, n_entities: int, n: int) -> pa.ListArray:
        """Return up to n addresses of each entity's images, by id."""
        with self._opened() as file:
            table = file.read(["entity_id", "image"], use_threads=False)
        table = table.filter(pc.is_valid(table["image"]))
        first = table.append_column("row", pa.array(np.arange(table.num_rows)))
        first = first.group_by(["entity_id", "image"], use_threads=False).aggregate([("row", "min")])
        first = first.sort_by("row_min")  # and so by entity: the file is
        entity_R = first["entity_id"].to_numpy()
        place_R = np.arange(len(entity_R)) - np.searchsorted(entity_R, entity_R)
        kept = np.flatnonzero(place_R < n)
        counts = np.bincount(entity_R[kept], minlength=n_entities)
        offsets = pa.array(np.append(0, np.cumsum(counts)).astype(np.int32))
        return pa.ListArray.from_arrays(offsets, first["image"].combine_chunks().take(pa.array(kept)))
