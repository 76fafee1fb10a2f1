"""Search a view in parts, each held elsewhere, as one index: bit for bit the same.

A part scores its own entities, in the arithmetic of the whole, and returns its own k best. The best of
these are the k best of all, since an entity's score depends on no other entity. How a part is reached
is not decided here: see :class:`Shards`.

Where the view has codes, a part returns its own candidates, estimated and scored. The best estimates of all
parts are the candidates of the whole, and the best scores among them its answer.

Shape letters: N entities, Q queries, M vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engine.query import Ids, Scores
from engine.retrieval.codes import Codes, CodeSettings, SearchEffort, find_codes
from engine.retrieval.index import Means, SearchResult, VectorIndex, Vectors, map_hubness, read_vectors
from engine.storage.reading_order import in_order, read_singly


class Shards(Protocol):
    """The way to the parts of a view, numbered from 0."""

    def call(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        """Ask parts side by side; return the answers in order.

        Args:
            requests: (number of the part, name of a method of :class:`IndexShard`, its arguments).
        """


class EntityRange(NamedTuple):
    """A part's entities, from ``first`` up to and without ``end``, a vector's dimensions, and the codes."""

    first: int
    end: int
    dimensions: int
    codes: CodeSettings | None = None


class Candidates(NamedTuple):
    """Entities that codes found, by id, with their exact scores and those that the codes estimated."""

    found: SearchResult
    estimates: Scores


class IndexShard:
    """The entities from ``first`` on of a view: as many as ``index`` holds. Takes and gives ids of the whole.

    No method is asked for an entity that lies elsewhere.
    """

    def __init__(self, first: int, index: VectorIndex, codes: Codes | None = None) -> None:
        self.index, self.codes = index, codes
        self._first = np.int32(first)

    @classmethod
    def read(cls, path: Path, part: int, parts: int) -> IndexShard:
        """Read the part of that number out of a view's file, cut into so many parts of about equal size.

        The rest of the file is not read. Where codes lie beside it, those of the part are read (of the only
        part: mapped), and the vectors stay mapped.

        Raises:
            BundleError: another kind of index.
        """
        vectors_ND, hubness_N = read_vectors(path, mapped=True), map_hubness(path)
        own = slice(len(vectors_ND) * part // parts, len(vectors_ND) * (part + 1) // parts)
        hubs = None if hubness_N is None else np.array(hubness_N[own])
        if (beside := find_codes(path)) is None:
            with in_order(vectors_ND):
                return cls(own.start, VectorIndex(vectors_ND[own].copy(), hubs))
        read_singly(vectors_ND)
        codes = Codes.read(beside)
        if parts > 1:
            codes = codes.part(own.start, own.stop)
        absent = np.setdiff1d(np.arange(own.start, own.stop), codes.ids()) - own.start
        return cls(own.start, VectorIndex(vectors_ND[own], hubs, absent), codes)

    def rows(self) -> EntityRange:
        """Return what it holds."""
        first = int(self._first)
        codes = None if self.codes is None else self.codes.settings
        return EntityRange(first, first + len(self.index), self.index.vectors_ND.shape[1], codes)

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

    def candidates(
        self,
        means_QD: Means,
        efforts: Sequence[SearchEffort],
        exclude: Sequence[Ids],
        among: Sequence[Ids | None],
        hubness: float,
    ) -> list[Candidates]:
        """Return for each query the entities of the best estimates, scored; as many as its effort says."""
        assert self.codes is not None
        answers = []
        for mean_D, effort, left_out, chosen in zip(means_QD, efforts, exclude, among, strict=True):
            ids, estimates = self.codes.nearest(mean_D, hubness, effort, left_out, chosen)
            by_id = np.argsort(ids)  # rows are read in the file's order
            scored = self.index.scored(ids[by_id] - self._first, mean_D, hubness)
            answers.append(Candidates(scored._replace(ids=ids[by_id]), estimates[by_id]))
        return answers


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

    @classmethod
    def of(cls, part: IndexShard) -> ShardedIndex:
        """Return the index of the only part of a view, in this process."""
        return cls.connect(_Here(part), 1)

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
        exact: bool = False,
    ) -> list[SearchResult]:
        """See :class:`engine.retrieval.index.Index`."""
        left_out = [np.asarray(ids, np.int32) for ids in exclude]
        queries = [
            _Query(*one) for one in zip(means_QD, left_out, among or [None] * len(left_out), strict=True)
        ]
        efforts = [None if exact else self._effort(k, one.among) for one in queries]
        coded = {place: effort for place, effort in enumerate(efforts) if effort is not None}
        found = self._by_codes(queries, k, hubness, coded)
        rest = [place for place in range(len(queries)) if place not in found]
        asked = self._ask("search", [queries[place] for place in rest], k, hubness)
        found |= {place: _merged(parts, k) for place, parts in zip(rest, asked, strict=True)}
        return [found[place] for place in range(len(queries))]

    def _effort(self, k: int, among: Ids | None) -> SearchEffort | None:
        codes = self._rows[0].codes
        return codes and codes.effort(self._rows[-1].end, k, None if among is None else len(among))

    def _by_codes(
        self, queries: Sequence[_Query], k: int, hubness: float, efforts: Mapping[int, SearchEffort]
    ) -> dict[int, SearchResult]:
        """Return what codes find, by the query's place; where that is fewer than k, more of them are read."""
        codes, waiting = self._rows[0].codes, dict(efforts)
        found: dict[int, SearchResult] = {}
        while codes and waiting:
            asked = [queries[place] for place in waiting]
            answers = self._ask("candidates", asked, list(waiting.values()), hubness)
            further: dict[int, SearchEffort] = {}
            for (place, effort), parts in zip(waiting.items(), answers, strict=True):
                found[place] = best_of_candidates(parts, k, effort.candidates)
                more = codes.wider(effort) if len(found[place].ids) < k else None
                further |= {place: more} if more else {}
            waiting = further
        return found

    def _ask(self, method: str, queries: Sequence[_Query], wanted: Any, hubness: float) -> list[list[Any]]:
        """Return for each query what the parts that hold anything answer."""
        if not queries:
            return []
        means_QD = np.stack([one.mean_D for one in queries])
        requests = []
        for part, (first, end, *_) in enumerate(self._rows):
            if first < end:
                ours = [one.exclude[self._inside(one.exclude, part)] for one in queries]
                only = [
                    None if one.among is None else one.among[self._inside(one.among, part)] for one in queries
                ]
                requests.append((part, method, (means_QD, wanted, ours, only, hubness)))
        found = self._shards.call(requests)
        return [[answers[place] for answers in found] for place in range(len(queries))]

    def _inside(self, ids: Ids, part: int) -> npt.NDArray[np.int64]:
        """Return the places of the ids that a part holds."""
        return np.flatnonzero((ids >= self._rows[part].first) & (ids < self._rows[part].end))


class _Here:
    """The way to a part in this process; see :class:`Shards`."""

    def __init__(self, part: IndexShard) -> None:
        self._part = part

    def call(self, requests: Sequence[tuple[int, str, tuple[Any, ...]]]) -> list[Any]:
        return [getattr(self._part, method)(*arguments) for _, method, arguments in requests]


class _Query(NamedTuple):
    mean_D: Means
    exclude: Ids
    among: Ids | None


def _merged(parts: Sequence[SearchResult], k: int) -> SearchResult:
    """Return the k best of what several parts found, ties by id."""
    return _joined(parts).best(k)


def best_of_candidates(parts: Sequence[Candidates], k: int, candidates: int) -> SearchResult:
    """Return the k best by score among those that have the best estimates in all parts, ties by id."""
    found = _joined([part.found for part in parts])
    estimates = np.concatenate([np.empty(0, np.float32), *(part.estimates for part in parts)])
    order = np.lexsort((found.ids, -estimates))[:candidates]
    return SearchResult(found.ids[order], found.scores[order], found.products[order]).best(k)


def _joined(parts: Sequence[SearchResult]) -> SearchResult:
    empty = SearchResult(np.empty(0, np.int32), np.empty(0, np.float32), np.empty(0, np.float32))
    return SearchResult(*map(np.concatenate, zip(empty, *parts, strict=True)))
