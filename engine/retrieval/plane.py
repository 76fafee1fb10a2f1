"""Lay some entities on a plane by their principal components: at once, and always alike.

Shape letters: N entities, D dimensions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.query import Scores

SAME = 1e-9
"""Share of the largest coordinate up to which two are told apart by their place alone, not by rounding."""


class Plane(NamedTuple):
    """Coordinates of entities on a plane, and their distances ``off`` it, [N] each; NaN without a vector."""

    x: Scores
    y: Scores
    off: Scores


def principal_plane(vectors_ND: npt.NDArray[np.floating]) -> Plane:
    """Return the coordinates of vectors along the two directions in which they differ most (PCA).

    The mean of those with a vector is (0, 0). Squares of ``x``, ``y`` and ``off`` add up to the squared
    distance to it. Of either direction that one is taken in which the entity farthest from the mean is
    positive, the first where several are as far. By the products between entities, so that many dimensions
    cost little: some hundred entities take milliseconds.

    Args:
        vectors_ND: a row of zeros stands for none.
    """
    known_N = np.any(vectors_ND, axis=1)
    found_N3 = np.full((len(vectors_ND), 3), np.nan)
    if known_N.any():
        centred = vectors_ND[known_N].astype(np.float64)
        centred -= centred.mean(axis=0)
        products = centred @ centred.T
        values, directions = np.linalg.eigh(products)  # ascending
        plane = np.zeros((len(centred), 2))
        for axis, place in enumerate(range(len(values) - 1, max(len(values) - 3, -1), -1)):
            plane[:, axis] = _turned(directions[:, place] * np.sqrt(max(values[place], 0.0)))
        off = np.sqrt(np.maximum(np.diag(products) - (plane**2).sum(axis=1), 0))
        found_N3[known_N] = np.column_stack([plane, off])
    return Plane(*found_N3.T.astype(np.float32))


def _turned(coordinates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return coordinates, or their negatives, so that the first of the largest is positive."""
    far = np.abs(coordinates)
    first = int(np.flatnonzero(far >= far.max() * (1 - SAME))[0])
    return -coordinates if coordinates[first] < 0 else coordinates
