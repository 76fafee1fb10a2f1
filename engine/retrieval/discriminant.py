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

DISCRIMINANT = "discriminant"
"""The entry of a bundle's settings that names the lists that the joint view was made with."""
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


class Discriminant(NamedTuple):
    """The two steps as maps of rows; None: the step says nothing.

    Attributes:
        normaliser_DD: of the first step.
        directions_DK: of the second step.
        weighted_KD: their weights, and the way back.
    """

    normaliser_DD: Vectors | None
    directions_DK: Vectors | None
    weighted_KD: Vectors | None

    def apply(self, vectors_nD: Vectors) -> Vectors:
        """Return what some unit vectors become: unit vectors; zeros stay zeros."""
        if self.normaliser_DD is not None:
            vectors_nD = unit(vectors_nD @ self.normaliser_DD)
        if self.directions_DK is not None and self.weighted_KD is not None:
            vectors_nD = unit(vectors_nD + (vectors_nD @ self.directions_DK) @ self.weighted_KD)
        return vectors_nD


def discriminant(vectors_MD: Vectors, queries: Sequence[Sides]) -> Discriminant:
    """Return the maps after which seeds of one side lie nearer, and two sides further apart.

    A side with one seed says nothing of the first step, a query with one side nothing of the second. Seeds
    whose vectors are zeros are left out.

    Args:
        vectors_MD: unit vectors of the seeds.
        queries: whose seeds are read, as places in these vectors. Their order makes no difference, but for
            rounding.
    """
    first = Discriminant(_normaliser(vectors_MD, queries), None, None)
    return first._replace(**_spreader(first.apply(vectors_MD), queries))


def discriminant_view(vectors_ND: Vectors, queries: Sequence[Sides]) -> Vectors:
    """Return the unit vectors of all entities after :func:`discriminant`."""
    return discriminant(vectors_ND, queries).apply(vectors_ND)


def _normaliser(vectors_MD: Vectors, queries: Sequence[Sides]) -> Vectors | None:
    """Return the map of within-class covariance normalisation, a side being a class."""
    several = [side_nD for query in queries for side_nD in _vectors_of(vectors_MD, query) if len(side_nD) > 1]
    if not several:
        return None
    deviations = [(side_nD - side_nD.mean(axis=0)) / np.sqrt(len(side_nD)) for side_nD in several]
    squares_D, directions_DD = _eigen(np.concatenate(deviations), len(several))
    rank = min(sum(len(side_nD) - 1 for side_nD in several), len(squares_D))
    shrunk_D = squares_D + SHRINKAGE * squares_D.sum() / rank
    if not shrunk_D.all():  # all seeds of each side have the same vector
        return None
    return ((directions_DD / np.sqrt(shrunk_D)) @ directions_DD.T).astype(np.float32)


def _spreader(vectors_MD: Vectors, queries: Sequence[Sides]) -> dict[str, Vectors]:
    """Return directions in which the two sides of queries lie apart, and their weights; nothing for none."""
    both = [sides for query in queries if all(map(len, sides := list(_vectors_of(vectors_MD, query))))]
    if not both:
        return {}
    apart_QD = np.stack([positive.mean(axis=0) - negative.mean(axis=0) for positive, negative in both])
    squares_D, directions_DD = _eigen(apart_QD, len(both))
    squares_K, directions_DK = squares_D[-DIRECTIONS:], directions_DD[:, -DIRECTIONS:]
    if squares_K[-1] <= 0:  # no two sides lie apart
        return {}
    weighted_KD = (GAIN * np.sqrt(squares_K / squares_K[-1]))[:, None] * directions_DK.T
    return {
        "directions_DK": directions_DK.astype(np.float32),
        "weighted_KD": weighted_KD.astype(np.float32),
    }


def _vectors_of(vectors_MD: Vectors, query: Sides) -> Iterable[Doubles]:
    """Yield the vectors of the seeds of either side that have one, [n, D]."""
    for seeds in query:
        side_nD = vectors_MD[seeds].astype(np.float64)
        yield side_nD[side_nD.any(axis=1)]


def _eigen(rows_MD: Doubles, count: int) -> tuple[Doubles, Doubles]:
    """Return eigenvalues [D], ascending and not below zero, and -vectors of the sum of squares by a count."""
    squares_D, directions_DD = np.linalg.eigh(rows_MD.T @ rows_MD / count)
    return np.maximum(squares_D, 0), directions_DD
