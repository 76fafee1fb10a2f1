"""Combine the views of an entity: centring, the joint view, and hubs.

========== =====================================================================================
mask       mean mask representation over its sentences (RetExpan, equation 2)
description mean token state of its description, from the encoder as it was before training
lexical    latent semantic analysis of its description and sentences (TF-IDF, truncated SVD)
contrast   as mask, by the encoder of a contrastive training (RetExpan, section 5.1.2)
adapted    as mask, by the encoder after a training of all its layers as a masked language model, centred
types      mean state, at the question for the type, of the typing model (FiveFine), centred
joint      mask (or contrast, where it is there), description and lexical side by side; a product of joint
           vectors is the mean of the three cosines. Where there is adapted, it and mask share mask's place;
           where there are types, that view at half the length. Where there are mined lists, it is then
           turned by what their seeds tell apart (:mod:`engine.retrieval.discriminant`)
========== =====================================================================================

Shape letters: N entities, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.query import Scores
from engine.retrieval.index import Vectors, unit

NEIGHBOURS = 100
"""Neighbours for hubness, or a quarter of a small vocabulary. A neighbourhood smaller than a class would
measure the class."""
SPREAD_SAMPLE = 2048
"""Entities whose products' deviation is measured."""
MAX_REFERENCE = 1 << 16
"""Entities that neighbours are looked for among: beyond this a sample, so that the cost stays linear."""


class EntitySums(NamedTuple):
    """Entities of a part of the sentences, int64 [n], and the sum of each one's states, float64 [n, D]."""

    ids: npt.NDArray[np.int64]
    sums_nD: npt.NDArray[np.float64]


def mean_view(parts: Mapping[int, EntitySums], n_entities: int) -> Vectors:
    """Return the unit mean of every entity's states, [N, D]; zeros for one without any.

    Parts are added in the order of their numbers, so that who was done first makes no difference.
    """
    dim = next((one.sums_nD.shape[1] for one in parts.values() if len(one.ids)), 1)
    total_ND = np.zeros((n_entities, dim))
    for part in sorted(parts):
        ids, sums_nD = parts[part]
        if len(ids):
            total_ND[ids] += sums_nD
    return unit(total_ND)


def centred(vectors_ND: Vectors) -> Vectors:
    """Return unit vectors after the mean over all entities that have one is taken off.

    States of one model share a large common part that says nothing of the entity.
    """
    present = np.asarray(vectors_ND.any(axis=1))
    if not present.any():
        return vectors_ND
    shifted = np.where(present[:, None], vectors_ND - vectors_ND[present].mean(axis=0), 0)
    return unit(shifted)


def joint_view(views: Sequence[Vectors]) -> Vectors:
    """Return unit vectors [N, sum of D]: the views side by side, each entity's share equal.

    For entities that have every view, a product is the mean of the views' cosines. A view that an
    entity lacks (zeros) counts as a cosine of zero.
    """
    return unit(np.concatenate(views, axis=1))


def scale_to_unit_similarity_std(vectors_ND: Vectors, seed: int = 13) -> Vectors:
    """Return the vectors scaled such that similarities of different entities have a standard deviation of 1.

    Cosines of texts lie within a few hundredths of each other, those of images within a few tenths: side
    by side, the wide ones would decide alone. Estimated from a sample of entities that have a vector.
    """
    present = np.flatnonzero(vectors_ND.any(axis=1))
    if len(present) > SPREAD_SAMPLE:
        present = np.sort(np.random.default_rng(seed).choice(present, SPREAD_SAMPLE, replace=False))
    products = vectors_ND[present] @ vectors_ND[present].T
    others = products[~np.eye(len(present), dtype=bool)]
    spread = float(others.std()) if len(others) else 0.0
    return vectors_ND / np.float32(np.sqrt(spread)) if spread > 0 else vectors_ND


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
    pool = torch.from_numpy(vectors_ND[reference])
    found = np.zeros(n, np.float32)
    for start in range(0, n, 1024):
        rows = np.arange(start, min(start + 1024, n))
        cosines = torch.from_numpy(vectors_ND[rows]) @ pool.T
        own = place[rows]
        inside = np.flatnonzero(own >= 0)
        cosines[inside, own[inside]] = -torch.inf
        found[rows] = cosines.topk(k, dim=1, sorted=False).values.mean(dim=1).numpy()
    return found
