"""Mine positives and hard negatives, and batch contexts in pairs for the objectives that compare.

Every entity is a query of its own: its nearest neighbors are positives, and those of ranks far enough to be
of another class, near enough to be taken for it, are hard negatives. No label and no query is used.

Near in what? The paper takes positives and negatives "from the expanded list obtained in the previous
iteration". Its authors train by entity prediction alone, expand the seeds of the test's queries, keep of the
first five those that the answers confirm, and train anew. Here the first iteration's lists are near by words
and images (:mod:`engine.training.multimodal_data`); with ``refresh_pairs`` those of later ones are near by
the mean mask states of the model as it is by then (:mod:`engine.training.own_lists`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.retrieval.index import VectorIndex, Vectors
from engine.training.order import Rows, rows_by_entity

K_POSITIVE = 5
HARD_RANKS = (170, 200)
"""First and last rank of hard negatives (as the authors do) …"""
HARD_SHARE = 3
"""… but no deeper than a third of the vocabulary: in a small one, rank 170 is no hard negative."""

QUERIES = 1024
"""Queries of a search at a time."""

Lists = npt.NDArray[np.int32]


@dataclass(frozen=True)
class NeighborLists:
    """The positives of each entity, itself first, and its hard negatives: int32 [N, *], -1: none."""

    positive: Lists
    negative: Lists


def nearest_neighbors(vectors_ND: Vectors) -> NeighborLists:
    """Return the nearest neighbors and the hard negatives of every entity, by cosine.

    Args:
        vectors_ND: unit vectors; an entity without one (zeros) has itself for its only positive.
    """
    n = len(vectors_ND)
    first = max(K_POSITIVE, min(HARD_RANKS[0], n // HARD_SHARE))
    last = min(first + HARD_RANKS[1] - HARD_RANKS[0], n - 1)
    positive = np.full((n, 1 + K_POSITIVE), -1, np.int32)
    negative = np.full((n, max(last - first, 0)), -1, np.int32)
    positive[:, 0] = np.arange(n)
    index = VectorIndex(vectors_ND)
    has_one = np.flatnonzero(vectors_ND.any(axis=1))
    for start in range(0, len(has_one), QUERIES):
        own = has_one[start : start + QUERIES]
        found = index.search(vectors_ND[own].astype(np.float64), max(last, 1), [[i] for i in own.tolist()])
        for entity, one in zip(own, found, strict=True):
            near, hard = one.ids[:K_POSITIVE], one.ids[first:last]
            positive[entity, 1 : 1 + len(near)] = near
            negative[entity, : len(hard)] = hard
    return NeighborLists(positive, negative)


class PairedBatches:
    """Batches of contexts in pairs: rows 2i and 2i + 1 are of an entity and one of its positives.

    Two pairs in a row are of entities that are hard negatives of each other. An epoch has as many rows
    as there are contexts; a quarter of them are drawn without replacement, in four epochs each once, and
    bring the others along. (Where a quarter has fewer contexts than an epoch has batches, one comes again.)

    Args:
        entity_id: the entity of each context, [n].
        usable: the contexts that may be drawn.
        lists: positives and hard negatives of every entity.
        batch_size: contexts of a batch at most, over all workers.
        seed: of the draws.
    """

    def __init__(
        self, entity_id: Rows, usable: Rows, lists: NeighborLists, batch_size: int, seed: int
    ) -> None:
        self._entity, self._usable, self._seed = entity_id, usable, seed
        self._quads = max(1, batch_size // 4)
        self._sorted = rows_by_entity(entity_id, usable)
        counts = np.bincount(entity_id[usable], minlength=len(lists.positive))
        self._first, self._count = np.cumsum([0, *counts])[:-1], counts
        # Only entities with contexts can be drawn; those in front are the others.
        self._positive = _compact(lists.positive, counts)
        self._negative = _compact(lists.negative, counts)

    def __len__(self) -> int:
        """Batches of an epoch; the last of the four quarters may be a context shorter."""
        return math.ceil(math.ceil(len(self._usable) / 4) / self._quads)

    def epoch(self, epoch: int) -> list[Rows]:
        """Return the rows of each batch of an epoch, a function of seed and epoch alone."""
        cycle, quarter = divmod(epoch, 4)
        order = np.random.default_rng([self._seed, cycle, 4]).permutation(self._usable)
        rng = np.random.default_rng([self._seed, epoch])
        anchor = order[quarter::4]
        if len(anchor) < len(self):  # a context too few: no batch may be empty
            anchor = np.append(anchor, order[:1])
        entity = self._entity[anchor]
        other = self._drawn(self._negative, entity, rng, instead=rng.choice(entity, len(entity)))
        rows = [
            anchor,
            self._row(self._drawn(self._positive, entity, rng, entity), rng),
            self._row(other, rng),
            self._row(self._drawn(self._positive, other, rng, other), rng),
        ]
        quads = np.stack(rows, axis=1)
        return [part.ravel() for part in np.array_split(quads, len(self))]

    def _drawn(
        self, lists: tuple[Lists, Rows], entity: Rows, rng: np.random.Generator, instead: Rows
    ) -> Rows:
        """Return for each entity one of its list, or what is to be taken where that is empty."""
        members, sizes = lists
        if not members.shape[1]:
            return instead
        place = (rng.random(len(entity)) * sizes[entity]).astype(np.int64)
        return np.where(sizes[entity] > 0, members[entity, place], instead)

    def _row(self, entity: Rows, rng: np.random.Generator) -> Rows:
        """Return a context of each entity."""
        place = (rng.random(len(entity)) * self._count[entity]).astype(np.int64)
        return self._sorted[self._first[entity] + place]


def _compact(lists: Lists, counts: npt.NDArray[np.int64]) -> tuple[Lists, Rows]:
    """Return the lists with their entities that have contexts in front, and how many these are."""
    there = (lists >= 0) & (counts[lists] > 0)
    order = np.argsort(~there, axis=1, kind="stable")
    return np.take_along_axis(lists, order, axis=1), there.sum(axis=1)
