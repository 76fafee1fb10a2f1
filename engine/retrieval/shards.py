"""Search a view in parts, each held elsewhere, as one index: bit for bit the same.

A part scores its own entities, in the arithmetic of the whole, and returns its own k best. The best of
these are the k best of all, since an entity's score depends on no other entity. How a part is reached
is not decided here: see :class:`Shards`.

Shape letters: N entities, Q queries, M vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.query import Ids, Scores
from engine.retrieval.index import Means, SearchResult, VectorIndex, Vectors, map_hubness, read_vectors


class Shards(Protocol):
    """The way to the parts of a view, numbered from 0."""

    def call(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        """Ask parts side by side; return the answers in order.

        Args:
            requests: (number of the part, name of a method of :class:`IndexShard`, its arguments).
        """


class EntityRange(NamedTuple):
    """The entities of a part, from ``first`` up to and without ``end``, and the dimensions of a vector."""

    first: int
    end: int
    dimensions: int


class IndexShard:
    """The entities from ``first`` on of a view: as many as ``index`` holds. Takes and gives ids of the whole.

    No method is asked for an entity that lies elsewhere.
    """

    def __init__(self, first: int, index: VectorIndex) -> None:
        self.index = index
        self._first = np.int32(first)

    @classmethod
    def read(cls, path: Path, part: int, parts: int) -> IndexShard:
        """Read the part of that number out of a view's file, cut into so many parts of about equal size.

        The rest of the file is not read.

        Raises:
            BundleError: another kind of index.
        """
        vectors_ND, hubness_N = read_vectors(path, mapped=True), map_hubness(path)
        own = slice(len(vectors_ND) * part // parts, len(vectors_ND) * (part + 1) // parts)
        hubs = None if hubness_N is None else np.array(hubness_N[own])
        return cls(own.start, VectorIndex(vectors_ND[own].copy(), hubs))

    def rows(self) -> EntityRange:
        """Return what it holds."""
        first = int(self._first)
        return EntityRange(first, first + len(self.index), self.index.vectors_ND.shape[1])

    def vectors_of(self, entity_ids: Ids) -> Vectors:
        """See :class:`engine.retrieval.index.Index`."""
        return self.index.vectors_ND[entity_ids - self._first]

    def similarities(self, asked: Sequence[tuple[Ids, Means]]) -> list[Scores]:
        """See :class:`engine.retrieval.index.Index`."""
        return self.index.similarities([(ids - self._first, vectors) for ids, vectors in asked])

    def search(
        self,
        means_QD: Means,
        k: int,
        exclude: Sequence[Ids],
        among: Sequence[Ids | None],
        hubness: float,
    ) -> list[SearchResult]:
        """See :class:`engine.retrieval.index.Index`."""
        found = self.index.search(
            means_QD,
            k,
            [(ids - self._first).tolist() for ids in exclude],
            [None if ids is None else ids - self._first for ids in among],
            hubness,
        )
        return [one._replace(ids=one.ids + self._first) for one in found]


class ShardedIndex:
    """An :class:`engine.retrieval.index.Index` over parts: each method asks all that it needs at once.

    Args:
        shards: the way to the parts.
        rows: what each part holds, one after the other from entity 0; a part may be empty.
    """

    def __init__(self, shards: Shards, rows: Sequence[EntityRange]) -> None:
        self._shards, self._rows = shards, list(rows)
        self._dimensions = rows[0].dimensions

    @classmethod
    def connect(cls, shards: Shards, parts: int) -> ShardedIndex:
        """Ask the parts what they hold."""
        return cls(shards, shards.call([(part, "rows", ()) for part in range(parts)]))

    def vectors_of(self, entity_ids: Sequence[int]) -> Vectors:
        """See :class:`engine.retrieval.index.Index`."""
        ids = np.asarray(entity_ids, np.int32)
        vectors = np.zeros((len(ids), self._dimensions), np.float32)
        places = {part: own for part in range(len(self._rows)) if len(own := self._inside(ids, part))}
        found = self._shards.call([(part, "vectors_of", (ids[own],)) for part, own in places.items()])
        for own, rows in zip(places.values(), found, strict=True):
            vectors[own] = rows
        return vectors

    def similarities(self, asked: Sequence[tuple[Ids, Means]]) -> list[Scores]:
        """See :class:`engine.retrieval.index.Index`."""
        products = [np.zeros((len(ids), len(vectors)), np.float32) for ids, vectors in asked]
        requests, targets = [], []
        for part in range(len(self._rows)):
            inside = [(i, own) for i, (ids, _) in enumerate(asked) if len(own := self._inside(ids, part))]
            if inside:
                mine = [(asked[i][0][own], asked[i][1]) for i, own in inside]
                requests.append((part, "similarities", (mine,)))
                targets.append(inside)
        for inside, found in zip(targets, self._shards.call(requests), strict=True):
            for (i, own), rows in zip(inside, found, strict=True):
                products[i][own] = rows
        return products

    def search(
        self,
        means_QD: Means,
        k: int,
        exclude: Sequence[Sequence[int]],
        among: Sequence[Ids | None] | None = None,
        hubness: float = 0,
    ) -> list[SearchResult]:
        """See :class:`engine.retrieval.index.Index`."""
        left_out = [np.asarray(ids, np.int32) for ids in exclude]
        chosen = among or [None] * len(means_QD)
        requests = []
        for part, (first, end, _) in enumerate(self._rows):
            if first < end:
                ours = [ids[self._inside(ids, part)] for ids in left_out]
                only = [None if ids is None else ids[self._inside(ids, part)] for ids in chosen]
                requests.append((part, "search", (means_QD, k, ours, only, hubness)))
        found = self._shards.call(requests)
        return [_merged([answer[query] for answer in found], k) for query in range(len(means_QD))]

    def _inside(self, ids: Ids, part: int) -> npt.NDArray[np.int64]:
        """Return the places of the ids that a part holds."""
        first, end, _ = self._rows[part]
        return np.flatnonzero((ids >= first) & (ids < end))


def _merged(parts: Sequence[SearchResult], k: int) -> SearchResult:
    """Return the k best of what several parts found, ties by id."""
    empty = SearchResult(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32))
    return SearchResult(*map(np.concatenate, zip(empty, *parts, strict=True))).best(k)
