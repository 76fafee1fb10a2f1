"""Reduce a sparse matrix of terms to a few dimensions, in memory that does not grow with the terms.

A truncated singular value decomposition by random projection and power iterations (Halko, Martinsson and
Tropp 2011, algorithm 4.4). The matrix A [N, F] is read block of columns by block of columns, several times;
what is kept is [N, K], for the entities, on this machine's disk where they are many. Beside scikit-learn's
``TruncatedSVD``, which holds [F, K], too, the subspace is the same (that of A A' to the power of 2, times the
same random numbers), and so is the result but for rounding.

Shape letters: N entities, F terms, P pairs (term, entity), K directions that are looked for, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.retrieval.index import Vectors, unit
from engine.retrieval.lexical import TermWeights
from engine.storage.mapped import scratch_array
from engine.storage.store import machine_cache

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

DIMS = 512
SPARE = 10
"""Directions that are looked for beside those that are kept."""
ITERATIONS = 2
ROWS = 4096
"""Rows that are changed at a time, in float64."""
PRODUCTS = 1 << 24
"""Products of a block that are held at a time, 64 MiB."""
COLUMNS = 1 << 24
"""Numbers of the columns that are multiplied at a time, 64 MiB; all blocks are read for each of them."""
NOTHING = 1e-13
"""Share of the largest eigenvalue up to which another is rounding."""

Blocks = Callable[[], Iterable[TermWeights]]
"""Reads the weights of all terms, some terms at a time; is called for every pass."""

Doubles = npt.NDArray[np.float64]


def latent_vectors(blocks: Blocks, n_entities: int, dims: int = DIMS, seed: int = 13) -> Vectors:
    """Return unit vectors [N, D] of entities, by latent semantic analysis of the weights of their terms.

    Each entity's weights are scaled to length 1. The largest singular directions are weighted by the root of
    their singular values, so that the few strongest topics do not drown the rest. An entity without a weight
    gets a vector of zeros.

    Args:
        blocks: weights of terms.
        n_entities: N.
        dims: D, less where there are fewer terms or entities.
        seed: of the random numbers.
    """
    matrix = _Matrix(blocks, n_entities)
    dims = min(dims, matrix.n_terms - 1, n_entities - 1)
    if dims < 1:
        return np.zeros((n_entities, 1), np.float32)
    states_NK = _random(n_entities, dims + SPARE, seed)
    for _ in range(ITERATIONS):
        states_NK = matrix.product(states_NK)
        _transform(states_NK, _roots(_products(states_NK, states_NK)))
    image_NK = matrix.product(states_NK)
    # The states span what the iterations have found: Q, an orthonormal basis of A' times it, is read by A.
    _transform(image_NK, _roots(_products(states_NK, image_NK)))
    del states_NK
    squares_K, directions_KK = np.linalg.eigh(_products(image_NK, image_NK))
    largest = np.argsort(-squares_K, kind="stable")[:dims]
    values_D = np.sqrt(np.maximum(squares_K[largest], 0))
    scores_ND = _empty(n_entities, dims)
    weighted_KD = directions_KK[:, largest] / np.sqrt(np.maximum(values_D, 1e-12))
    for rows in _slices(n_entities):
        scores_ND[rows] = unit(image_NK[rows].astype(np.float64) @ weighted_KD)
    return scores_ND


class _Matrix:
    """A matrix [N, F] that is read in blocks of columns, its rows scaled to length 1."""

    def __init__(self, blocks: Blocks, n_entities: int) -> None:
        self._blocks, self._n_entities = blocks, n_entities
        squares_N = np.zeros(n_entities)
        self.n_terms = 0
        for block in blocks():
            weights = block.weights_P.astype(np.float64)
            squares_N += np.bincount(block.entities_P, weights**2, n_entities)
            self.n_terms += len(block.starts_F1) - 1
        self._lengths_N = np.sqrt(squares_N).astype(np.float32)

    def product(self, states_NK: Vectors) -> Vectors:
        """Return A A' times some columns."""
        found_NK = _empty(*states_NK.shape)
        together = max(COLUMNS // len(states_NK), 8)
        for first in range(0, states_NK.shape[1], together):
            columns = slice(first, first + together)
            found_NK[:, columns] = self._product(np.ascontiguousarray(states_NK[:, columns]))
        return found_NK

    def _product(self, states_NK: Vectors) -> Vectors:
        """Return the same of so many columns as memory holds."""
        found_NK = np.zeros_like(states_NK)
        for block in self._read():
            width = max(PRODUCTS // max(block.shape), 8)
            for start in range(0, states_NK.shape[1], width):
                some = slice(start, start + width)
                found_NK[:, some] += block @ (block.T @ np.ascontiguousarray(states_NK[:, some]))
        return found_NK

    def _read(self) -> Iterator[csc_matrix]:
        from scipy.sparse import csc_matrix

        for starts_F1, entities_P, weights_P in self._blocks():
            scaled = weights_P / self._lengths_N[entities_P]
            yield csc_matrix((scaled, entities_P, starts_F1), (self._n_entities, len(starts_F1) - 1))


def _empty(n_entities: int, n_columns: int) -> Vectors:
    """Return a matrix to be filled, mapped where it is large."""
    return scratch_array(machine_cache(), np.float32, (n_entities, n_columns))


def _random(n_entities: int, n_columns: int, seed: int) -> Vectors:
    """Return normal random numbers, [N, K]: those that scikit-learn's decomposition begins with."""
    draw = np.random.RandomState(seed)
    found = _empty(n_entities, n_columns)
    for rows in _slices(n_entities):
        found[rows] = draw.normal(size=found[rows].shape)
    return found


def _products(left_NK: Vectors, right_NK: Vectors) -> Doubles:
    """Return the products of columns, float64 [K, K]; of what is symmetric but for rounding."""
    found = np.zeros((left_NK.shape[1], right_NK.shape[1]))
    for rows in _slices(len(left_NK)):
        found += left_NK[rows].astype(np.float64).T @ right_NK[rows].astype(np.float64)
    return (found + found.T) / 2


def _roots(products_KK: Doubles) -> Doubles:
    """Return T with T' P T = 1 on what P spans, [K, K]: its eigenvectors over the roots of its eigenvalues.

    Directions that are rounding alone become zeros.
    """
    values_K, vectors_KK = np.linalg.eigh(products_KK)
    spanned = values_K > NOTHING * values_K[-1]
    return vectors_KK * np.where(spanned, 1 / np.sqrt(np.where(spanned, values_K, 1)), 0)


def _transform(states_NK: Vectors, by_KK: Doubles) -> None:
    """Multiply rows by a matrix, in place."""
    for rows in _slices(len(states_NK)):
        states_NK[rows] = states_NK[rows].astype(np.float64) @ by_KK


def _slices(n_rows: int) -> Iterator[slice]:
    for start in range(0, n_rows, ROWS):
        yield slice(start, start + ROWS)
