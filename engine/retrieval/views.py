"""Combine the views of an entity: centring, the joint view, and hubs.

========== =====================================================================================
mask       mean mask representation over its sentences (RetExpan, equation 2)
description mean token state of its description, from the encoder as it was before training
lexical    latent semantic analysis of its description and sentences (TF-IDF, truncated SVD)
contrast   as mask, by the encoder of a contrastive training (RetExpan, section 5.1.2)
adapted    as mask, by the encoder after a training of all its layers as a masked language model, centred
types      mean state, at the question for the type, of the typing model (FiveFine), centred
joint      mask (or contrast, where it is there), description and lexical side by side; a product of joint
           vectors is the mean of the three cosines. Of the first, where an encoder was trained, directions
           in which sentences of one entity differ count less (:mod:`engine.retrieval.within_entities`).
           Where there is adapted, it and mask share mask's place;
           where there are types, that view at half the length. Where there are mined lists, it is then
           turned by what their seeds tell apart (:mod:`engine.retrieval.discriminant`)
========== =====================================================================================

Shape letters: N entities, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.query import Scores
from engine.retrieval.index import Vectors, unit
from engine.storage.mapped import scratch_array
from engine.storage.store import machine_cache

NEIGHBOURS = 100
"""Neighbours for hubness, or a quarter of a small vocabulary. A neighbourhood smaller than a class would
measure the class."""
ROWS = 1 << 14
"""Rows that are changed at a time."""
SPREAD_SAMPLE = 2048
"""Entities whose products' deviation is measured."""
MAX_REFERENCE = 1 << 16
"""Entities that neighbours are looked for among: beyond this a sample, so that the cost stays linear."""
HUB_ROWS, HUB_REFERENCE = 1024, 1 << 14
"""Entities, and those that neighbours are looked for among, that are multiplied at a time: 64 MiB."""


class EntitySums(NamedTuple):
    """Entities of a part of the sentences, int64 [n], and the sum of each one's states, float64 [n, D]."""

    ids: npt.NDArray[np.int64]
    sums_nD: npt.NDArray[np.float64]


def mean_view(parts: Iterable[EntitySums], n_entities: int) -> Vectors:
    """Return the unit mean of every entity's states, [N, D]; zeros for one without any.

    Of many entities sums and means are maps of files (:func:`engine.storage.mapped.scratch_array`).

    Args:
        parts: one at a time, always in the same order: what is added up depends on it in its last digits.
        n_entities: N.
    """
    total_ND: npt.NDArray[np.float64] | None = None
    for ids, sums_nD in parts:
        if len(ids):
            if total_ND is None:
                total_ND = scratch_array(machine_cache(), np.float64, (n_entities, sums_nD.shape[1]))
            total_ND[ids] += sums_nD
    if total_ND is None:
        return np.zeros((n_entities, 1), np.float32)
    return unit_rows((total_ND[some] for some in row_slices(n_entities)), total_ND.shape)


def unit_rows(blocks: Iterable[npt.NDArray[np.floating]], shape: tuple[int, ...]) -> Vectors:
    """Return rows scaled to length 1, as :func:`engine.retrieval.index.unit` does; of many, mapped.

    Args:
        blocks: rows after one another.
        shape: of all together, [N, D].
    """
    found_ND, first = scratch_array(machine_cache(), np.float32, shape), 0
    for block in blocks:
        found_ND[first : first + len(block)] = unit(block)
        first += len(block)
    return found_ND


@dataclass(frozen=True)
class ViewPart:
    """A view as it stands in the joint one; its vectors, which may be mapped, are changed row by row.

    Args:
        vectors_ND: unit vectors.
        mean_D: is taken off those that are there, which are unit vectors again then; None: nothing is.
        factor: of the length.
        map_DD: rows are multiplied by it before all else, and are unit vectors again; None: they are not.
    """

    vectors_ND: Vectors
    mean_D: Vectors | None = None
    factor: float = 1.0
    map_DD: Vectors | None = None

    @classmethod
    def centred(cls, vectors_ND: Vectors, map_DD: Vectors | None = None) -> ViewPart:
        """Return vectors, after a map if there is one, less their mean over all entities that have one.

        States of one model share a large common part that says nothing of the entity.
        """
        whole = cls(vectors_ND, map_DD=map_DD)
        present, total_D = 0, np.zeros(vectors_ND.shape[1])
        for some in row_slices(len(vectors_ND)):
            own_nD = whole.rows(some)
            there = np.asarray(own_nD.any(axis=1))
            total_D += own_nD[there].sum(axis=0, dtype=np.float64)
            present += int(there.sum())
        return replace(whole, mean_D=(total_D / present).astype(vectors_ND.dtype) if present else None)

    def rows(self, some: slice | npt.NDArray[np.int64]) -> Vectors:
        """Return some rows, as they stand in the joint view."""
        own_nD = self.vectors_ND[some]
        if self.map_DD is not None:
            own_nD = unit(own_nD @ self.map_DD)
        if self.mean_D is not None:
            own_nD = unit(np.where(np.asarray(own_nD.any(axis=1))[:, None], own_nD - self.mean_D, 0))
        return own_nD if self.factor == 1 else np.float32(self.factor) * own_nD

    def whole(self) -> Vectors:
        """Return all rows in memory."""
        found = np.empty(self.vectors_ND.shape, np.float32)
        for some in row_slices(len(found)):
            found[some] = self.rows(some)
        return found

    def times(self, factor: float) -> ViewPart:
        """Return the view so many times as long."""
        return replace(self, factor=factor * self.factor)

    def with_unit_similarity_std(self, seed: int = 13) -> ViewPart:
        """Return the view at such a length that similarities of entities have a standard deviation of 1.

        Cosines of texts lie within a few hundredths of each other, those of images within a few tenths: side
        by side, the wide ones would decide alone. Estimated from a sample of entities that have a vector.
        """
        present = np.flatnonzero(self.vectors_ND.any(axis=1))
        if len(present) > SPREAD_SAMPLE:
            present = np.sort(np.random.default_rng(seed).choice(present, SPREAD_SAMPLE, replace=False))
        sample = self.rows(present)
        products = sample @ sample.T
        others = products[~np.eye(len(present), dtype=bool)]
        spread = float(others.std()) if len(others) else 0.0
        return self.times(float(1 / np.sqrt(spread))) if spread > 0 else self


def row_slices(n_rows: int) -> Iterator[slice]:
    """Yield slices of so many rows as are changed at a time."""
    for start in range(0, n_rows, ROWS):
        yield slice(start, start + ROWS)


def centred(vectors_ND: Vectors) -> Vectors:
    """Return unit vectors after the mean over all entities that have one is taken off."""
    return ViewPart.centred(vectors_ND).whole()


def joint_view(parts: Sequence[ViewPart]) -> Iterator[Vectors]:
    """Yield unit vectors [N, sum of D], some rows at a time: views side by side, each entity's share equal.

    For entities that have every view, a product is the mean of the views' cosines. A view that an
    entity lacks (zeros) counts as a cosine of zero.
    """
    for some in row_slices(len(parts[0].vectors_ND)):
        yield joint_rows(parts, some)


def joint_rows(parts: Sequence[ViewPart], some: slice | npt.NDArray[np.int64]) -> Vectors:
    """Return some rows of the :func:`joint_view`."""
    return unit(np.concatenate([part.rows(some) for part in parts], axis=1))


def hubness(vectors_ND: Vectors, neighbours: int | None = None, seed: int = 13) -> Scores:
    """Return each entity's mean cosine to its nearest neighbours, itself left out, float32 [N].

    A hub is near to everything and so comes up for every query; taking a share of this off its score
    corrects that (the idea of cross-domain similarity local scaling). Costs N * N * D products, or
    N * 65,536 * D with a random sample of reference entities beyond that size.

    Args:
        vectors_ND: unit vectors.
        neighbours: how many; default: :data:`NEIGHBOURS`.
        seed: of the sample.
    """
    if neighbours is None:
        neighbours = min(NEIGHBOURS, max(len(vectors_ND) // 4, 1))
    n = len(vectors_ND)
    reference = np.arange(n)
    if n > MAX_REFERENCE:
        reference = np.sort(np.random.default_rng(seed).choice(n, MAX_REFERENCE, replace=False))
    k = min(max(1, neighbours * len(reference) // max(n, 1)), len(reference) - 1)
    if k < 1:
        return np.zeros(n, np.float32)
    place = np.full(n, -1)
    place[reference] = np.arange(len(reference))
    pool_RD = scratch_array(machine_cache(), np.float32, (len(reference), vectors_ND.shape[1]))
    for some in row_slices(len(reference)):
        pool_RD[some] = vectors_ND[reference[some]]
    found = np.zeros(n, np.float32)
    for start in range(0, n, HUB_ROWS):
        rows = slice(start, min(start + HUB_ROWS, n))
        own_nD = np.array(vectors_ND[rows], np.float32)
        found[rows] = _nearest(own_nD, pool_RD, place[rows], k).mean(dim=1).numpy()
    return found


def _nearest(vectors_nD: Vectors, pool_RD: Vectors, own_n: npt.NDArray[np.int64], k: int) -> torch.Tensor:
    """Return the k largest cosines of some vectors with those of a pool, [n, k].

    Args:
        vectors_nD, pool_RD: unit vectors; the pool may be mapped, and is read some rows at a time.
        own_n: the row of the pool that is the vector itself, and does not count; -1: none is.
        k: how many, less than the pool has.
    """
    best = torch.empty(len(vectors_nD), 0)
    for start in range(0, len(pool_RD), HUB_REFERENCE):
        some_RD = pool_RD[start : start + HUB_REFERENCE]
        cosines = torch.from_numpy(vectors_nD) @ torch.from_numpy(some_RD).T
        inside = np.flatnonzero((own_n >= start) & (own_n < start + len(some_RD)))
        cosines[inside, own_n[inside] - start] = -torch.inf
        best = torch.cat([best, cosines.topk(min(k, len(some_RD)), dim=1, sorted=False).values], dim=1)
        best = best.topk(min(k, best.shape[1]), dim=1, sorted=False).values
    return best
