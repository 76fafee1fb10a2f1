"""Tell what a corpus holds already, by the keys of its parts, and which of it was met again."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.corpus.importing.part_keys import COLUMNS, Digests, PartKeys, digest_of, digests_of, keys_of
from engine.storage.store import Store


class _Read(NamedTuple):
    """A part that was read: of its rows what they are compared by, and which were met."""

    digests: Digests
    starts: npt.NDArray[np.int32]
    met: npt.NDArray[np.bool_]


class KnownMentions:
    """The mentions that are there already. A part is read when a key of it is met, once.

    Of ten million mentions it holds 120 MB, a key and the row of each, and 21 bytes more of each
    mention of a part that was read.

    Args:
        parts: of mentions.
        keys: of each part; None: there are none, and the part is read now.
    """

    def __init__(self, parts: Sequence[Store], keys: Sequence[PartKeys | None]) -> None:
        self._parts, self._read = parts, dict[int, _Read]()
        self.made: dict[int, PartKeys] = {}
        """Keys of the parts that had none, by their places."""
        whole = [one or self._keys_of(place) for place, one in enumerate(keys)]
        self.rows = [len(one.keys) for one in whole]
        """Mentions of each part."""
        self._entities = [np.unique(one.entities) for one in whole]
        told = [np.unique(one.entities[one.has_sentence]) for one in whole]
        self.mentioned: set[int] = set(np.unique(np.concatenate(told)).tolist()) if told else set()
        """Ids of the entities that have a sentence."""
        found = np.concatenate([one.keys for one in whole]) if whole else np.zeros(0, np.int64)
        order = np.argsort(found, kind="stable")
        self._keys = found[order]
        self._order = order.astype(np.int32 if len(order) <= np.iinfo(np.int32).max else np.int64)
        """The row of each key, counted over all parts."""
        self._first = np.cumsum([0, *self.rows])

    def meet(self, entity_id: int, sentence: str, image: str | None, start: int | None) -> bool:
        """Return whether a mention is there, and note that it was met.

        Args:
            entity_id, sentence, image: of the mention.
            start: of one that people marked, as a sentence may be marked in several places; None: of one that
                we found, which is the first place of several.
        """
        digest, is_there = digest_of(entity_id, sentence, image), False
        place = int(self._keys.searchsorted(digest[0]))
        while place < len(self._keys) and self._keys[place] == digest[0]:
            row = self._order[place]
            part = int(self._first.searchsorted(row, side="right")) - 1
            read, own = self._opened(part), row - self._first[part]
            if tuple(read.digests[own]) == digest and start in (None, read.starts[own]):
                read.met[own] = is_there = True
            place += 1
        return is_there

    def met(self, place: int) -> npt.NDArray[np.bool_]:
        """Return which mentions of a part were met, bool [rows]."""
        read = self._read.get(place)
        return np.zeros(self.rows[place], np.bool_) if read is None else read.met

    def has_any(self, place: int, entities: Collection[int]) -> bool:
        """Return whether a part has a mention of any of some entities."""
        return bool(np.isin(self._entities[place], list(entities)).any())

    def _keys_of(self, place: int) -> PartKeys:
        """Return the keys of a part that has none, and note them."""
        table = self._open(place)
        self.made[place] = keys_of(table, self._read[place].digests)
        return self.made[place]

    def _opened(self, place: int) -> _Read:
        if place not in self._read:
            self._open(place)
        return self._read[place]

    def _open(self, place: int) -> pa.Table:
        with self._parts[place].open_input() as stream:
            table = pq.read_table(stream, columns=[*COLUMNS, "start"])
        starts = table["start"].to_numpy()
        self._read[place] = _Read(digests_of(table), starts, np.zeros(len(table), np.bool_))
        return table
