"""Compare two bundles' views of the same entities: how many of an entity's nearest stay its nearest."""

from __future__ import annotations

import numpy as np

from engine.retrieval.index import Vectors

NEAREST = 10
SAMPLE = 2000
"""Entities that are compared at most, drawn at random."""


def neighbor_overlap(before_ND: Vectors, after_ND: Vectors, k: int = NEAREST, seed: int = 13) -> float:
    """Return the mean share of an entity's ``k`` nearest before that are among its ``k`` nearest after.

    Args:
        before_ND: unit vectors, or zeros, [N, D].
        after_ND: of the same entities, and maybe more behind them, [N or more, D']. Those are no one's
            neighbours here.
        k: neighbours of an entity, by cosine; ties go to the smaller id.
        seed: of the draw of entities, where there are more than :data:`SAMPLE`.

    Returns:
        Between 0 and 1; 1 where there are no two entities.
    """
    n = len(before_ND)
    k = min(k, n - 1)
    if k < 1:
        return 1.0
    asked = np.sort(np.random.default_rng(seed).permutation(n)[:SAMPLE])
    shared = 0
    for start in range(0, len(asked), 256):
        some = asked[start : start + 256]
        near = [_nearest(view[:n], some, k) for view in (before_ND, after_ND)]
        shared += sum(len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True))
    return shared / (k * len(asked))


def _nearest(view_ND: Vectors, some: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest of some entities, itself not counted, int64 [n, k]."""
    scores_nN = view_ND[some] @ view_ND.T
    scores_nN[np.arange(len(some)), some] = -np.inf
    return np.argsort(-scores_nN, axis=1, kind="stable")[:, :k]
