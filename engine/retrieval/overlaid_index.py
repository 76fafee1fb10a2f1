"""Search a view together with the entities of an overlay: bit for bit as if these had been in the index.

An entity's score depends on no other entity, so the best of what both find are the best of all, as where an
index lies in parts (:mod:`engine.retrieval.shards`).

Shape letters: N entities of the bundle, n of the overlay, Q queries, M vectors, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from engine.overlay.state import OverlayLayer, OverlayState
from engine.query import Ids, Scores
from engine.retrieval.index import Index, Means, SearchResult, VectorIndex, Vectors


class _Added(NamedTuple):
    """The entities of an overlay that were made an index of, by their places in the state."""

    state: OverlayState
    vectors: VectorIndex


class OverlaidIndex:
    """An :class:`engine.retrieval.index.Index` over a bundle's view and an overlay.

    Args:
        base: the bundle's.
        view: its name, by which the overlay knows its vectors.
        layer: the overlay, which may change between calls; a call sees one state of it.
    """

    def __init__(self, base: Index, view: str, layer: OverlayLayer) -> None:
        self._base, self._view, self._layer = base, view, layer
        self._dimensions = base.vectors_of([]).shape[1]
        self._known: _Added | None = None

    def vectors_of(self, entity_ids: Sequence[int]) -> Vectors:
        """See :class:`engine.retrieval.index.Index`."""
        ids, added = np.asarray(entity_ids, np.int32), self._added()
        if added is None:
            return self._base.vectors_of(entity_ids)
        ours = ids < self._layer.first
        vectors = np.zeros((len(ids), self._dimensions), np.float32)
        vectors[ours] = self._base.vectors_of(ids[ours].tolist())
        places = added.state.places(ids[~ours])
        vectors[np.flatnonzero(~ours)[places >= 0]] = added.vectors.vectors_of(places[places >= 0].tolist())
        return vectors

    def similarities(self, asked: Sequence[tuple[Ids, Means]]) -> list[Scores]:
        """See :class:`engine.retrieval.index.Index`."""
        added = self._added()
        if added is None:
            return self._base.similarities(asked)
        ours = [np.asarray(ids) < self._layer.first for ids, _ in asked]
        found = self._base.similarities(
            [(ids[own], vectors) for (ids, vectors), own in zip(asked, ours, strict=True)]
        )
        products = []
        for (ids, vectors), own, known in zip(asked, ours, found, strict=True):
            rows = np.zeros((len(ids), len(vectors)), np.float32)
            rows[own] = known
            places = added.state.places(ids[~own])
            (ones,) = added.vectors.similarities([(places[places >= 0], vectors)])
            rows[np.flatnonzero(~own)[places >= 0]] = ones
            products.append(rows)
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
        added, first = self._added(), self._layer.first
        given = among or [None] * len(means_QD)
        left_out = [np.asarray(ids, np.int32) for ids in exclude]
        found = self._base.search(
            means_QD,
            k,
            [ids[ids < first].tolist() for ids in left_out],
            [None if ids is None else ids[ids < first] for ids in given],
            hubness,
            exact,
        )
        if added is None:
            return found
        further = added.vectors.search(
            means_QD,
            k,
            [self._inside(added, ids).tolist() for ids in left_out],
            [None if ids is None else self._inside(added, ids) for ids in given],
            hubness,
        )
        return [
            _joined(base, one._replace(ids=added.state.ids[one.ids])).best(k)
            for base, one in zip(found, further, strict=True)
        ]

    def _inside(self, added: _Added, ids: Ids) -> Ids:
        """Return the places of the ids that the overlay has."""
        places = added.state.places(ids)
        return places[places >= 0]

    def _added(self) -> _Added | None:
        """Return the entities of the overlay as an index, made once a state; None where there are none."""
        state = self._layer.state
        if not state.added:
            return None
        if self._known is None or self._known.state is not state:
            vectors, hubs = state.vectors(self._view, self._dimensions), state.hubness(self._view)
            self._known = _Added(state, VectorIndex(vectors, hubs))
        return self._known


def _joined(one: SearchResult, other: SearchResult) -> SearchResult:
    return SearchResult(*(np.concatenate(pair) for pair in zip(one, other, strict=True)))
