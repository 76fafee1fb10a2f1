"""Let directions in which sentences of one entity differ count less in a view, by a map in closed form.

A view's vector of an entity is the mean of what single sentences say. What these differ in, one entity's from
its own others, is what else a sentence is about, and of a few sentences a part of it stays in the mean. With
W the covariance within entities and W' = (1 - s) W + s tr(W) / D I, vectors are multiplied by W'^(-1/2):
within-class covariance normalisation (Hatch, Kajarekar and Stolcke, Interspeech 2006), an entity being a
class, shrunk as in :mod:`engine.models.lda`. No query and no label is read.

Shape letters: n sentences, e entities, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.models.lda import TEXT_SHRINKAGE
from engine.retrieval.index import Vectors


class Scatter(NamedTuple):
    """How the sentences of single entities differ.

    Attributes:
        products_DD: the sum of (x - m) (x - m)' over sentences, m the mean of the entity's, float64.
        freedom: sentences less entities.
    """

    products_DD: npt.NDArray[np.float64]
    freedom: int

    @classmethod
    def of(cls, entities_n: npt.NDArray[np.integer], states_nD: npt.NDArray[np.floating]) -> Scatter:
        """Return the scatter of some sentences, given the entity and the state of each."""
        _, place_n, count_e = np.unique(entities_n, return_inverse=True, return_counts=True)
        means_eD = np.zeros((len(count_e), states_nD.shape[1]))
        np.add.at(means_eD, place_n, states_nD.astype(np.float64))
        means_eD /= count_e[:, None]
        apart_nD = states_nD - means_eD[place_n]
        return cls(apart_nD.T @ apart_nD, len(states_nD) - len(count_e))


def within_map(scatters: Iterable[Scatter], shrinkage: float = TEXT_SHRINKAGE) -> Vectors | None:
    """Return W'^(-1/2), float32 [D, D]; None where no sentence differs from another of its entity.

    Args:
        scatters: of parts of the sentences; an entity's mean is that of its part.
        shrinkage: s in 0 to 1; 1 leaves cosines as they are.
    """
    total, freedom = None, 0
    for one in scatters:
        total = one.products_DD if total is None else total + one.products_DD
        freedom += one.freedom
    if total is None or freedom == 0 or not np.trace(total) > 0:
        return None
    squares_D, directions_DD = np.linalg.eigh(total / freedom)
    shrunk_D = (1 - shrinkage) * np.maximum(squares_D, 0) + shrinkage * squares_D.mean()
    return np.asarray((directions_DD / np.sqrt(shrunk_D)) @ directions_DD.T, np.float32)
