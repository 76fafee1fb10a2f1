"""Find the entities that may be among a query's best, by products in float32 whose rounding is allowed for.

All vectors are read once, however many queries there are: a matrix that is larger than the memory is read
from the disk, which takes longer than all else.

Shape letters: N entities, Q queries, D dimensions, n entities of a range of rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.query import Ids, Scores
from engine.storage.reading_order import in_order

MAX_SCORES = 1 << 26
"""Scores held at a time (256 MiB): the more queries there are, the fewer vectors are looked at together."""

ROWS = 1 << 14
"""Rows of a mapped matrix that are copied at a time (48 MiB of 768 dimensions)."""

BLOCK = 16
"""Scores whose maximum is taken first: selecting among maxima is cheaper and almost as tight."""


class Asked(NamedTuple):
    """A query: its vector [D], the ids that it must not find, and those that it may; None: all."""

    mean_D: npt.NDArray[np.float64]
    exclude: npt.NDArray[np.int64]
    among: Ids | None


class _Near(NamedTuple):
    """Entities and their scores in float32, [n] each."""

    ids: Ids
    scores: Scores


def nearest_candidates(
    vectors_ND: npt.NDArray[np.float32],
    asked: Sequence[Asked],
    k: int,
    absent: npt.NDArray[np.integer[Any]],
    penalty_N: Scores | None,
) -> list[Ids]:
    """Return for each query the entities of which some may be among the k best.

    Args:
        vectors_ND: of all entities.
        asked: the queries.
        k: wanted.
        absent: entities that cannot be found.
        penalty_N: what is taken off an entity's products; None: nothing.
    """
    if not asked:
        return []
    queries_QD = np.stack([query.mean_D for query in asked]).astype(np.float32)
    # What float32 may have rounded away: a product is wrong by at most D roundings of the norm.
    most = 0.0 if penalty_N is None else float(np.abs(penalty_N).max(initial=0))
    rounding = (queries_QD.shape[1] + 4) * float(np.finfo(np.float32).eps)
    slacks = [rounding * (float(np.linalg.norm(query.mean_D)) + most) for query in asked]
    found = [_Near(np.empty(0, np.int32), np.empty(0, np.float32)) for _ in asked]
    rows = max(1, MAX_SCORES // len(asked))
    for start in range(0, len(vectors_ND), rows):
        part = slice(start, min(start + rows, len(vectors_ND)))
        with in_order(vectors_ND):
            scores_Qn = _products(queries_QD, vectors_ND[part])
        if penalty_N is not None:
            scores_Qn -= penalty_N[part]
        scores_Qn[:, _within(absent, part) - start] = -np.inf
        for place, (query, scores_n, slack) in enumerate(zip(asked, scores_Qn, slacks, strict=True)):
            scores_n[_within(query.exclude, part) - start] = -np.inf
            chosen = None if query.among is None else _within(query.among, part) - start
            near = _near_the_best(scores_n if chosen is None else scores_n[chosen], k, slack)
            ids = near if chosen is None else chosen[near]
            more = _Near((ids + start).astype(np.int32), scores_n[ids])
            found[place] = _nearest_of(found[place], more, k, slack)
    return [near.ids for near in found]


def _within(ids: npt.NDArray[np.integer[Any]], part: slice) -> npt.NDArray[np.integer[Any]]:
    """Return those ids that lie in a range of rows."""
    return ids[(ids >= part.start) & (ids < part.stop)]


def _nearest_of(before: _Near, more: _Near, k: int, slack: float) -> _Near:
    """Return what is near the best of some ranges together with one more."""
    if not len(before.ids):
        return more
    both = _Near(np.concatenate([before.ids, more.ids]), np.concatenate([before.scores, more.scores]))
    near = _near_the_best(both.scores, k, slack)
    return _Near(both.ids[near], both.scores[near])


def _products(queries_QD: npt.NDArray[np.float32], vectors_nD: npt.NDArray[np.float32]) -> Scores:
    """Return the products [Q, n] in float32; what is rounded away depends on what is in the batch."""
    if not vectors_nD.flags.aligned:  # NumPy would copy all of a mapped FAISS file, which begins at byte 45
        scores_Qn = np.empty((len(queries_QD), len(vectors_nD)), np.float32)
        for start in range(0, len(vectors_nD), ROWS):
            scores_Qn[:, start : start + ROWS] = queries_QD @ vectors_nD[start : start + ROWS].copy().T
        return scores_Qn
    # NumPy's matrix-vector product uses all cores (PyTorch's one only): it is as fast as memory.
    if len(queries_QD) == 1:
        products_n: Scores = vectors_nD @ queries_QD[0]
        return products_n[None]
    return queries_QD @ vectors_nD.T


def _near_the_best(scores_n: Scores, k: int, slack: float) -> Ids:
    """Return the places of the finite ones among the k best and all that lie less than ``slack`` below.

    The k-th largest maximum over blocks bounds the k-th largest score from below, at a fraction of
    the cost of selecting among all scores. The bound of a range lies no higher than that of all ranges, so
    what is near the best of all is near the best of its own range.
    """
    block = max(1, min(BLOCK, len(scores_n) // (4 * k)))
    maxima = scores_n[: len(scores_n) // block * block].reshape(block, -1).max(axis=0)
    place = len(maxima) - k
    threshold = float(np.partition(maxima, place)[place]) if place > 0 else -np.inf
    least = max(threshold - slack, float(np.finfo(np.float32).min))
    return np.flatnonzero(scores_n >= np.float32(least)).astype(np.int32)
