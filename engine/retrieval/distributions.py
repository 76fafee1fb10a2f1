"""Entities as distributions over entities, kept sparse, and their KL divergence to a class.

An entity is the mean of what the encoder predicts at ``[MASK]`` in its contexts: a distribution over the
N entities of the vocabulary (MultiExpan, "Entity Expansion"). Dense, 50,000 entities are 50,000 x 50,000
x 4 B = 10 GB. So of each entity the M largest probabilities are kept, and what remains is spread evenly
over the other N - M: 50,000 x 256 x (4 + 4) B = 102 MB, memory-mapped.

**What is lost.** Let p be the whole distribution, p~ the kept one, T the mass outside of the kept, v the
least kept probability and r = T / (N - M). They differ in the tail alone, so that

    KL(p || p~) = sum over the tail of p_j log(p_j / r) = T (log(N - M) - H(tail / T)) <= T log(v / r)

and it is nothing where the tail is even (which is what label smoothing teaches) or M = N. Measured for
the softmax of normal logits, N = 50,000 and M = 256, in nats: deviation 6 (a model that is sure) has
T = 0.008 and loses 0.03; deviation 4, T = 0.11 and 0.34; deviation 2 (it hardly knows), T = 0.72 and 0.99.

**Floor.** Every probability p is read as (1 - EPSILON) p + EPSILON / N, on both sides, so that no
logarithm is of zero. It is a mixture, so sums stay one, KL stays >= 0, and the mean of floored
distributions is the floored mean. Below, p, r and c are floored already.

**Divergence in one sparse pass.** Let entity e hold v_j at its M kept ids K and r elsewhere, and c be the
class, with L = sum over all j of log c_j and sum of c_j = 1. Split both sums into K and the rest:

    towards="class":  KL(e || c) = sum_K v_j log v_j + (N - M) r log r - r L - sum_K (v_j - r) log c_j
    towards="entity": KL(c || e) = sum c_j log c_j - log r - sum_K c_j (log v_j - log r)

The first two terms of the first are the entity's alone and are computed once. Nothing of N x N is made.
The mean of some entities is the class c that minimises the mean of KL(e || c), which is why
``towards="class"`` is the default.

Knows nothing of encoders or queries. Shape letters: N entities, M kept, B rows at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids, Scores

Probabilities = npt.NDArray[np.float64]
Towards = Literal["class", "entity"]
Rows = Ids | slice

KEPT = 256
"""Probabilities that are kept of an entity unless said otherwise."""

EPSILON = 1e-6
"""Share of the even distribution that is mixed into every distribution."""

ROWS = 512
"""Entities of which a pass looks at a time: what it gathers (1 MiB) stays in the cache."""


def distributions_folder(view: str) -> str:
    """Return the name of the bundle's folder that holds the entities' distributions of a view."""
    return f"distributions/{view}"


def truncate(dense_BN: npt.NDArray[np.floating], m: int = KEPT) -> tuple[Ids, Scores, Scores]:
    """Return the sparse form of some entities' distributions.

    Args:
        dense_BN: a row an entity, scaled to sum to one; a row of zeros is an entity without a context.
        m: probabilities to keep; at most all N.

    Returns:
        ids int32 [B, m] (rising), their probabilities float32 [B, m], and the probability of each
        entity that is not kept, float32 [B].
    """
    n = dense_BN.shape[1]
    m = min(m, n)
    ids_BM = np.sort(np.argpartition(dense_BN, n - m, axis=1)[:, n - m :], axis=1)
    total_B = dense_BN.sum(axis=1, dtype=np.float64)
    scale_B = 1 / np.where(total_B > 0, total_B, 1)
    kept_BM = np.take_along_axis(dense_BN, ids_BM, axis=1).astype(np.float64)
    tail_B = np.maximum(total_B - kept_BM.sum(axis=1), 0) * scale_B
    values_BM = np.asarray(kept_BM * scale_B[:, None], np.float32)
    return ids_BM.astype(np.int32), values_BM, np.asarray(tail_B / max(n - m, 1), np.float32)


class SparseDistributions:
    """The distributions of all entities. Rows of zeros are entities without a context: "absent".

    Args:
        ids_NM: int32, the entities whose probability is kept, each once a row.
        values_NM: float32, their probabilities.
        rest_N: float32, the probability of each entity that is not kept, so that
            ``values.sum() + rest * (N - M)`` is 1.
    """

    def __init__(self, ids_NM: Ids, values_NM: Scores, rest_N: Scores) -> None:
        self.ids_NM, self.values_NM, self.rest_N = ids_NM, values_NM, rest_N
        self.present_N = values_NM.any(axis=1) | (rest_N > 0)

    @classmethod
    def read(cls, folder: Path) -> SparseDistributions:
        """Map the files of a folder.

        Raises:
            BundleError: the files do not fit each other.
        """
        ids, values, rest = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False))
            for name in ("ids", "values", "rest")
        )
        kinds = (ids.dtype, values.dtype, rest.dtype) == (np.int32, np.float32, np.float32)
        if not kinds or ids.ndim != 2 or ids.shape != values.shape or rest.shape != ids.shape[:1]:
            raise BundleError(
                f"{folder.name}: ids {ids.dtype} {ids.shape}, values {values.dtype} {values.shape} and rest "
                f"{rest.dtype} {rest.shape} do not make distributions; build the index again"
            )
        return cls(ids, values, rest)

    def write(self, folder: Path) -> None:
        """Write ``ids.npy``, ``values.npy`` and ``rest.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "ids.npy", self.ids_NM.astype(np.int32), allow_pickle=False)
        np.save(folder / "values.npy", self.values_NM.astype(np.float32), allow_pickle=False)
        np.save(folder / "rest.npy", self.rest_N.astype(np.float32), allow_pickle=False)

    def __len__(self) -> int:
        return len(self.rest_N)

    def dense(self, entity_ids: npt.ArrayLike) -> Scores:
        """Return the whole distributions of some entities, float32 [n, N], without the floor."""
        ids = np.asarray(entity_ids, np.int64)
        rows_nN = np.repeat(self.rest_N[ids, None], len(self), axis=1)
        np.put_along_axis(rows_nN, self.ids_NM[ids], self.values_NM[ids], axis=1)
        return rows_nN

    def divergence(self, class_N: Probabilities, towards: Towards = "class") -> Probabilities:
        """Return the KL divergence in nats of every entity, float64 [N]; infinity for an absent one.

        Args:
            class_N: the class, without the floor.
            towards: ``"class"``: KL(entity || class); ``"entity"``: KL(class || entity).
        """
        return self._divergence([slice(i, i + ROWS) for i in range(0, len(self), ROWS)], class_N, towards)

    def divergence_of(
        self, entity_ids: Ids, class_N: Probabilities, towards: Towards = "class"
    ) -> Probabilities:
        """Return :meth:`divergence` of some entities alone, float64 [n]: the same numbers."""
        return self._divergence(
            [entity_ids[i : i + ROWS] for i in range(0, len(entity_ids), ROWS)], class_N, towards
        )

    def _divergence(self, blocks: Sequence[Rows], class_N: Probabilities, towards: Towards) -> Probabilities:
        floored_N = floored(class_N, len(self))
        logs_N = np.log(floored_N)
        table_N = logs_N if towards == "class" else floored_N
        whole = float(logs_N.sum() if towards == "class" else floored_N @ logs_N)
        gathered = np.empty((ROWS, self.ids_NM.shape[1]))
        found = [np.empty(0)]
        for rows in blocks:
            ids_BM = self.ids_NM[rows]
            # With a place for what is taken, and without a check of each id, it takes a sixth of the time.
            class_BM = table_N.take(ids_BM, out=gathered[: len(ids_BM)], mode="clip")
            found.append(self.combined(rows, class_BM, whole, towards))
        return np.concatenate(found)

    def combined(self, rows: Rows, class_BM: Probabilities, whole: float, towards: Towards) -> Probabilities:
        """Return the divergences of some entities, given what their formula needs of the class.

        Args:
            rows: the entities.
            class_BM: the class at their kept ids: log c_j towards the class, c_j towards the entity.
            whole: the sum over all j of log c_j towards the class, of c_j log c_j towards the entity.
        """
        values_BM, n = self.values_NM[rows], len(self)
        rest_B = self.rest_N[rows].astype(np.float64)
        floor_B = floored(rest_B, n)
        if towards == "class":
            # v_j - r, of which the floor leaves its share.
            inside_B = np.einsum("bm,bm->b", values_BM, class_BM) - rest_B * np.einsum("bm->b", class_BM)
            found_B = self._own_N[rows] - floor_B * whole - (1 - EPSILON) * inside_B
        else:
            above_BM = np.log(floored(values_BM.astype(np.float64), n) / floor_B[:, None])
            found_B = whole - np.log(floor_B) - np.einsum("bm,bm->b", class_BM, above_BM)
        # A divergence of nearly nothing may be rounded to less.
        return np.where(self.present_N[rows], np.maximum(found_B, 0), np.inf)

    @cached_property
    def _own_N(self) -> Probabilities:
        """The sum of p log p of every entity: what of KL(entity || class) does not depend on the class."""
        n, m = self.ids_NM.shape
        found = np.empty(n)
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            kept_BM = floored(self.values_NM[rows].astype(np.float64), n)
            rest_B = floored(self.rest_N[rows].astype(np.float64), n)
            found[rows] = (kept_BM * np.log(kept_BM)).sum(axis=1) + (n - m) * rest_B * np.log(rest_B)
        return found


def floored(probabilities: Probabilities, n: int) -> Probabilities:
    """Return probabilities of n entities, none of them zero: see the module."""
    return (1 - EPSILON) * probabilities + EPSILON / n


class ClassMean:
    """The weighted mean of some entities' distributions, to which one entity after the other is added.

    An addition, and the divergence of a few entities, cost what is kept of the entities concerned, and
    not N: all entities that nobody in the class keeps have one probability.

    Args:
        n: entities of the vocabulary.
    """

    def __init__(self, n: int) -> None:
        self.weight = 0.0
        self._even = 0.0
        self._above_N = np.zeros(n)
        self._is_kept_N = np.zeros(n, bool)
        self._kept = np.empty(n, np.int32)
        self._count = 0
        self._whole: dict[Towards, float] = {}

    def add(self, distributions: SparseDistributions, entity_id: int, weight: float = 1) -> Self:
        """Add an entity, which must not be absent; return this class."""
        ids_M, rest = distributions.ids_NM[entity_id], float(distributions.rest_N[entity_id])
        self._above_N[ids_M] += weight * (distributions.values_NM[entity_id].astype(np.float64) - rest)
        self._even += weight * rest
        self.weight += weight
        new = ids_M[~self._is_kept_N[ids_M]]
        self._is_kept_N[new] = True
        self._kept[self._count : self._count + len(new)] = new
        self._count += len(new)
        self._whole.clear()
        return self

    def dense(self) -> Probabilities:
        """Return the class, float64 [N], without the floor."""
        return np.maximum(self._above_N + self._even, 0) / self.weight

    def divergence_of(
        self, distributions: SparseDistributions, entity_ids: Ids, towards: Towards = "class"
    ) -> Probabilities:
        """Return the KL divergence in nats of some entities, float64 [n].

        See :meth:`SparseDistributions.divergence_of`: the same up to rounding.
        """
        class_BM = self._at(distributions.ids_NM[entity_ids])
        if towards == "class":
            class_BM = np.log(class_BM)
        return distributions.combined(entity_ids, class_BM, self._sum(towards), towards)

    def _at(self, ids: Ids) -> Probabilities:
        """Return the floored probabilities of some entities."""
        above = self._above_N[ids]
        return floored(np.maximum(above + self._even, 0) / self.weight, len(self._above_N))

    def _sum(self, towards: Towards) -> float:
        """Return the sum over all entities of log c_j, or of c_j log c_j."""
        if towards not in self._whole:
            n = len(self._above_N)
            kept, other = self._at(self._kept[: self._count]), floored(np.array(self._even / self.weight), n)
            logs, log = np.log(kept), np.log(other)
            inside = logs.sum() if towards == "class" else kept @ logs
            outside = log if towards == "class" else other * log
            self._whole[towards] = float(inside + (n - self._count) * outside)
        return self._whole[towards]
