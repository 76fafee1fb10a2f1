"""Exact search by mean cosine over one view of all entities, stored as a flat FAISS index.

Mean cosine to m seeds is one product with the mean of their unit vectors (RetExpan, equation 5), so a
query costs one pass over the matrix and a batch of queries costs one matrix product.

Shape letters: N entities, Q queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids, Scores

Vectors = npt.NDArray[np.float32]

BLOCK = 16
"""Scores whose maximum is taken first: selecting among maxima is cheaper and almost as tight."""

MAX_SCORES = 1 << 26
"""Scores held at a time (256 MiB): larger batches of queries are cut."""


def unit(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return rows scaled to length 1; a row of zeros (an entity without a sentence) stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), np.float32)


class _Borrowed:
    """The vectors of a FAISS index; every array made from this keeps the index alive."""

    def __init__(self, index: faiss.IndexFlat) -> None:
        self.index = index
        vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d)
        shaped = vectors.reshape(index.ntotal, index.d)
        self.__array_interface__ = shaped.__array_interface__


class VectorIndex:
    """Unit vectors of all entities, [N, D] float32. Rows of zeros are entities that cannot be found."""

    def __init__(self, vectors_ND: Vectors) -> None:
        self.vectors_ND = vectors_ND
        self._absent = np.flatnonzero(~vectors_ND.any(axis=1))

    @classmethod
    def read(cls, path: Path) -> VectorIndex:
        """Read a flat inner-product index; its vectors are used in place.

        Raises:
            BundleError: another kind of index.
        """
        index = faiss.read_index(str(path))
        if not isinstance(index, faiss.IndexFlat) or index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise BundleError(f"{path.name}: not a flat inner-product index; build it again")
        return cls(np.asarray(_Borrowed(index)))

    def write(self, path: Path) -> None:
        """Write the vectors as a flat FAISS index."""
        index = faiss.IndexFlatIP(self.vectors_ND.shape[1])
        index.add(self.vectors_ND)
        path.parent.mkdir(parents=True, exist_ok=True)
        faiss.write_index(index, str(path))

    def __len__(self) -> int:
        return len(self.vectors_ND)

    def has_vector(self, entity_id: int) -> bool:
        """Whether an entity has a vector in this view."""
        return bool(self.vectors_ND[entity_id].any())

    def has_vectors(self, entity_ids: Ids) -> npt.NDArray[np.bool_]:
        """Whether each of some entities has a vector in this view, bool [n]."""
        return ~np.isin(entity_ids, self._absent)

    def mean_of(self, entity_ids: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return the mean of the unit vectors of some entities, [D] float64; zeros for none.

        Entities without a vector are left out, so that they do not draw the mean towards zero.
        """
        used = [i for i in entity_ids if self.has_vector(i)]
        if not used:
            return np.zeros(self.vectors_ND.shape[1])
        return self.vectors_ND[used].astype(np.float64).mean(axis=0)

    def similarity(self, entity_ids: Ids, mean_D: npt.NDArray[np.float64]) -> Scores:
        """Return each entity's product with ``mean_D``, float32 [n].

        Summed in float64 entity by entity, so that a query's scores do not depend on what else
        is in its batch: the three runtimes give identical rankings.
        """
        exact = np.einsum("nd,d->n", self.vectors_ND[entity_ids], mean_D)
        return np.asarray(exact, np.float32)

    def search(
        self,
        means_QD: npt.NDArray[np.float64],
        k: int,
        exclude: Sequence[Sequence[int]],
        penalty_N: Scores | None = None,
    ) -> list[tuple[Ids, Scores]]:
        """Return for each query the k entities with the largest product, best first, ties by id.

        Args:
            means_QD: one vector a query.
            k: entities wanted; fewer come back where fewer have a vector.
            exclude: for each query the ids that must not come back.
            penalty_N: taken off each entity's product; the scores that come back are after it.
        """
        step = max(1, MAX_SCORES // max(len(self), 1))
        found = []
        for start in range(0, len(means_QD), step):
            found += self._search(means_QD[start : start + step], k, exclude[start : start + step], penalty_N)
        return found

    def _search(
        self,
        means_QD: npt.NDArray[np.float64],
        k: int,
        exclude: Sequence[Sequence[int]],
        penalty_N: Scores | None,
    ) -> list[tuple[Ids, Scores]]:
        # NumPy's matrix-vector product uses all cores (PyTorch's one only): it is as fast as memory.
        queries_QD = means_QD.astype(np.float32)
        if len(queries_QD) == 1:
            scores_QN = (self.vectors_ND @ queries_QD[0])[None]
        else:
            scores_QN = queries_QD @ self.vectors_ND.T
        if penalty_N is not None:
            scores_QN -= penalty_N
        # What float32 may have rounded away: a product is wrong by at most D roundings of the norm.
        most = 0.0 if penalty_N is None else float(np.abs(penalty_N).max(initial=0))
        rounding = (means_QD.shape[1] + 4) * float(np.finfo(np.float32).eps)
        found = []
        for scores_N, mean_D, ids in zip(scores_QN, means_QD, exclude, strict=True):
            scores_N[self._absent] = -np.inf
            scores_N[list(ids)] = -np.inf
            slack = rounding * (float(np.linalg.norm(mean_D)) + most)
            candidates = _candidates(scores_N, k, slack)
            scores = self.similarity(candidates, mean_D)
            if penalty_N is not None:
                scores -= penalty_N[candidates]
            order = np.lexsort((candidates, -scores))[:k]
            found.append((candidates[order], scores[order]))
        return found


def _candidates(scores_N: Scores, k: int, slack: float) -> Ids:
    """Return the finite ones among the k best and all that lie less than ``slack`` below them.

    The k-th largest maximum over blocks bounds the k-th largest score from below, at a fraction of
    the cost of selecting among all scores.
    """
    block = max(1, min(BLOCK, len(scores_N) // (4 * k)))
    maxima = scores_N[: len(scores_N) // block * block].reshape(block, -1).max(axis=0)
    place = len(maxima) - k
    threshold = float(np.partition(maxima, place)[place]) if place > 0 else -np.inf
    least = max(threshold - slack, float(np.finfo(np.float32).min))
    return np.flatnonzero(scores_N >= np.float32(least)).astype(np.int32)
