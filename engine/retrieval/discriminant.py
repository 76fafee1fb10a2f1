"""Tell apart in a view what the seeds of queries tell apart: a linear map, in closed form.

Seeds of one side of a query belong together, and those of its two sides do not. Two steps say so to a view:

1. *Within sides.* Directions in which seeds of one side differ count less: within-class covariance
   normalisation (WCCN; Hatch, Kajarekar and Stolcke, Interspeech 2006), a side being a class. With S_w the
   mean over sides of their covariances and t the mean of the eigenvalues that it can have (as many as there
   are seeds less one a side), vectors are multiplied by (S_w + :data:`SHRINKAGE` * t * I)^(-1/2). So few
   seeds, which differ in few directions, and by chance, change little.
2. *Between sides.* The directions in which the two sides of queries lie apart, the largest of the mean S_b of
   (m+ - m-)(m+ - m-)' over queries, count more: a direction with the share r of the largest eigenvalue is
   multiplied by 1 + :data:`GAIN` * sqrt(r). (Linear discriminant analysis would keep these alone.)

After either step rows are scaled to length 1. What is computed is a few products of [M, D] and two
eigendecompositions of [D, D], so that it takes seconds whatever the number of entities.

Shape letters: N entities, M seeds of all sides, Q queries, D dimensions, K directions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.query import Ids
from engine.retrieval.index import Vectors, unit

SHRINKAGE = 10.0
"""Of the covariance within sides, in means of its eigenvalues."""
GAIN = 0.5
"""Of the direction in which sides lie apart most."""
DIRECTIONS = 32
"""Directions between sides that count more at most."""

Doubles = npt.NDArray[np.float64]


class Sides(NamedTuple):
    """The seeds of a query, entities of the vocabulary, int32 [n] each."""

    positive: Ids
    negative: Ids


def discriminant_view(vectors_ND: Vectors, queries: Sequence[Sides]) -> Vectors:
    """Return unit vectors [N, D] in which seeds of one side lie nearer, and two sides further apart.

    A side with one seed says nothing of the first step, a query with one side nothing of the second; where
    all are such, vectors stay as they are. Rows of zeros are entities without a vector and stay zeros; as
    seeds they are left out.

    Args:
        vectors_ND: unit vectors of all entities.
        queries: whose seeds are read. The order makes no difference, but for rounding.
    """
    return _spread(_normalised(vectors_ND, queries), queries)


def _normalised(vectors_ND: Vectors, queries: Sequence[Sides]) -> Vectors:
    """Return the vectors after within-class covariance normalisation, a side being a class."""
    several = [side_nD for query in queries for side_nD in _vectors_of(vectors_ND, query) if len(side_nD) > 1]
    if not several:
        return vectors_ND
    deviations = [(side_nD - side_nD.mean(axis=0)) / np.sqrt(len(side_nD)) for side_nD in several]
    squares_D, directions_DD = _eigen(np.concatenate(deviations), len(several))
    rank = min(sum(len(side_nD) - 1 for side_nD in several), len(squares_D))
    shrunk_D = squares_D + SHRINKAGE * squares_D.sum() / rank
    if not shrunk_D.all():  # all seeds of each side have the same vector
        return vectors_ND
    map_DD = (directions_DD / np.sqrt(shrunk_D)) @ directions_DD.T
    return unit(vectors_ND @ map_DD.astype(np.float32))


def _spread(vectors_ND: Vectors, queries: Sequence[Sides]) -> Vectors:
    """Return the vectors with more weight on the directions in which the two sides of queries lie apart."""
    both = [sides for query in queries if all(map(len, sides := list(_vectors_of(vectors_ND, query))))]
    if not both:
        return vectors_ND
    apart_QD = np.stack([positive.mean(axis=0) - negative.mean(axis=0) for positive, negative in both])
    squares_D, directions_DD = _eigen(apart_QD, len(both))
    squares_K, directions_DK = squares_D[-DIRECTIONS:], directions_DD[:, -DIRECTIONS:]
    if squares_K[-1] <= 0:  # no two sides lie apart
        return vectors_ND
    weighted_KD = (GAIN * np.sqrt(squares_K / squares_K[-1]))[:, None] * directions_DK.T
    return unit(vectors_ND + (vectors_ND @ directions_DK.astype(np.float32)) @ weighted_KD.astype(np.float32))


def _vectors_of(vectors_ND: Vectors, query: Sides) -> Iterable[Doubles]:
    """Yield the vectors of the seeds of either side that have one, [n, D]."""
    for seeds in query:
        side_nD = vectors_ND[seeds].astype(np.float64)
        yield side_nD[side_nD.any(axis=1)]


def _eigen(rows_MD: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """Return eigenvalues [D], ascending and not below zero, and -vectors of the sum of squares by a count."""
    squares_D, directions_DD = np.linalg.eigh(rows_MD.T @ rows_MD / count)
    return np.maximum(squares_D, 0), directions_DD
