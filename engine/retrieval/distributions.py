"""Represent entities as sparse distributions over entities, and compute their KL divergence to a class.

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
class. Split both sums into K and the rest, with the sum of all c_j = 1:

    towards="class":  KL(e || c) = sum_K v_j log v_j + (N - M) r log r - r W - sum_K (v_j - r) log c_j
    towards="entity": KL(c || e) = W - log r - sum_K c_j (log v_j - log r)

where W is the sum over all j of log c_j, and of c_j log c_j. Both end in sum_K x_j t_j, where x is the
entity's and t the class's (:class:`Centre`). The class of a few entities has one t, call it b, at every
id that none of them keeps, so that this is b sum_K x_j + sum x_j (t_j - b) over the other ids alone: for
all entities at once it costs the columns of those ids, out of a copy of x by column (102 MB as well, made
on first use, float32: it moves a divergence by less than 1e-6). Nothing of N x N is made.

The mean of some entities is the class c that minimises the mean of KL(e || c), which is why
``towards="class"`` is the default.

Knows nothing of encoders or queries. Shape letters: N entities, M kept, B rows at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids, Scores

if TYPE_CHECKING:  # loaded with the first search: what only describes a pipeline does without
    from scipy.sparse import csc_matrix

Probabilities = npt.NDArray[np.float64]
Towards = Literal["class", "entity"]

KEPT = 256
"""Probabilities that are kept of an entity unless said otherwise."""

EPSILON = 1e-6
"""Share of the even distribution that is mixed into every distribution."""

ROWS = 512
"""Entities that are looked at at a time: what is made of them (1 MiB) stays in the cache."""


def distributions_folder(view: str) -> str:
    """Return the name of the bundle's folder that holds the entities' distributions of a view."""
    return f"distributions/{view}"


def truncate(dense_BN: npt.NDArray[np.floating], m: int = KEPT) -> tuple[Ids, Scores, Scores]:
    """Return the sparse form of some entities' distributions.

    Args:
        dense_BN: a row an entity, scaled to sum to one; a row of zeros is an entity without a context.
        m: probabilities to keep; at most all N.

    Returns:
        ids int32 [B, m] (ascending), their probabilities float32 [B, m], and the probability of each
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
        self._columns: dict[Towards, tuple[Probabilities, Probabilities, csc_matrix]] = {}
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

    def prepare(self, towards: Towards) -> None:
        """Make now what the first pass over all entities would make: a second for 50,000."""
        self._by_column(towards)

    def divergence(self, centre: Centre) -> Probabilities:
        """Return the KL divergence in nats of every entity, float64 [N]; infinity for an absent one."""
        own_N, sums_N, columns = self._by_column(centre.towards)
        base = centre.values[0]
        products_N = base * sums_N + columns[:, centre.ids] @ (centre.values[1:] - base)
        return self._combined(slice(None), products_N, own_N, centre)

    def divergence_of(self, entity_ids: Ids, centre: Centre) -> Probabilities:
        """Return the KL divergence in nats of some entities, float64 [n]: without the copy by column."""
        found = [np.empty(0)]
        for start in range(0, len(entity_ids), ROWS):
            rows = entity_ids[start : start + ROWS]
            factors_BM, own_B = self._factors(rows, centre.towards)
            class_BM = centre.values[centre.place_N[self.ids_NM[rows]]]
            products_B = np.einsum("bm,bm->b", factors_BM, class_BM)
            found.append(self._combined(rows, products_B, own_B, centre))
        return np.concatenate(found)

    def _combined(
        self, rows: Ids | slice, products_B: Probabilities, own_B: Probabilities, centre: Centre
    ) -> Probabilities:
        """Return divergences, given the sums over K of x_j t_j and what is the entities' own."""
        share_B = floored(self.rest_N[rows], len(self)) if centre.towards == "class" else -1
        # A divergence of nearly nothing may be rounded to less.
        found_B = np.maximum(own_B - share_B * centre.whole - products_B, 0)
        return np.where(self.present_N[rows], found_B, np.inf)

    def _factors(self, rows: Ids | slice, towards: Towards) -> tuple[Probabilities, Probabilities]:
        """Return x [B, M] of some entities, and the part of their divergence that is theirs alone [B]."""
        n = len(self)
        kept_BM, rest_B = floored(self.values_NM[rows], n), floored(self.rest_N[rows], n)
        if towards == "entity":
            log_B = np.log(rest_B)
            return np.log(kept_BM) - log_B[:, None], -log_B
        return kept_BM - rest_B[:, None], self._negentropy_N[rows]

    @cached_property
    def _negentropy_N(self) -> Probabilities:
        """The sum of p log p of every entity."""
        n, m = self.ids_NM.shape
        found = np.empty(n)
        for start in range(0, n, ROWS):
            rows = slice(start, start + ROWS)
            kept_BM, rest_B = floored(self.values_NM[rows], n), floored(self.rest_N[rows], n)
            found[rows] = (kept_BM * np.log(kept_BM)).sum(axis=1) + (n - m) * rest_B * np.log(rest_B)
        return found

    def _by_column(self, towards: Towards) -> tuple[Probabilities, Probabilities, csc_matrix]:
        """Return of all entities their own part, the sums of x, and x by column."""
        from scipy.sparse import csr_matrix

        if towards not in self._columns:
            n, m = self.ids_NM.shape
            own_N, sums_N, factors_NM = np.empty(n), np.empty(n), np.empty((n, m), np.float32)
            for start in range(0, n, ROWS):
                rows = slice(start, start + ROWS)
                factors_BM, own_N[rows] = self._factors(rows, towards)
                factors_NM[rows], sums_N[rows] = factors_BM, factors_BM.sum(axis=1)
            starts = np.arange(0, n * m + 1, m)
            by_row = csr_matrix((factors_NM.ravel(), self.ids_NM.ravel(), starts), shape=(n, n))
            self._columns[towards] = own_N, sums_N, by_row.tocsc()
        return self._columns[towards]


def floored(probabilities: npt.NDArray[np.floating], n: int) -> Probabilities:
    """Return probabilities of n entities, none of them zero, float64: see the module."""
    return (1 - EPSILON) * np.asarray(probabilities, np.float64) + EPSILON / n


@dataclass(frozen=True)
class Centre:
    """A class as divergences need it: see the module. Shape letter: C ids that differ from the base.

    Args:
        towards: ``"class"``: KL(entity || class); ``"entity"``: KL(class || entity).
        ids: int32 [C], where t is not the base.
        values: t, float64 [1 + C]: the base, and then that of each of ``ids``.
        place_N: int32 [N], the place of every entity's t in ``values``.
        whole: W.
    """

    towards: Towards
    ids: Ids
    values: Probabilities
    place_N: Ids
    whole: float

    @classmethod
    def of(cls, class_N: Probabilities, towards: Towards = "class") -> Centre:
        """Return the centre of any distribution, given without the floor."""
        ids = np.arange(len(class_N), dtype=np.int32)
        return cls.made(towards, floored(np.append(0, class_N), len(class_N)), ids, ids + 1)

    @classmethod
    def made(cls, towards: Towards, floored_C: Probabilities, ids: Ids, place_N: Ids) -> Centre:
        """Return the centre of floored probabilities [1 + C]: that of all others first."""
        logs = np.log(floored_C)
        terms = logs if towards == "class" else floored_C * logs
        whole = terms[1:].sum() + (len(place_N) - len(ids)) * terms[0]
        return cls(towards, ids, logs if towards == "class" else floored_C, place_N, float(whole))


class ClassMean:
    """The weighted mean of some entities' distributions, to which one entity after the other is added.

    All entities that no member of the class keeps have one probability, so a logarithm is taken of those
    that some member keeps, and not of all.

    Args:
        n: entities of the vocabulary.
    """

    def __init__(self, n: int) -> None:
        self._weight = self._even = 0.0
        self._ids = np.empty(0, np.int32)
        self._above = np.zeros(1)  # excess over the even share: zero, then that of each of the ids
        self._place_N = np.zeros(n, np.int32)

    def add(self, distributions: SparseDistributions, entity_id: int, weight: float = 1) -> None:
        """Add an entity, which must not be absent."""
        ids_M, rest = distributions.ids_NM[entity_id], float(distributions.rest_N[entity_id])
        new = ids_M[self._place_N[ids_M] == 0]
        self._place_N[new] = len(self._above) + np.arange(len(new))
        self._ids = np.concatenate([self._ids, new])
        self._above = np.concatenate([self._above, np.zeros(len(new))])
        above_M = distributions.values_NM[entity_id].astype(np.float64) - rest
        self._above[self._place_N[ids_M]] += weight * above_M
        self._even += weight * rest
        self._weight += weight

    def centre(self, towards: Towards = "class") -> Centre:
        """Return the centre of the class as it is now; there must be an entity in it."""
        mean_C = (self._above + self._even) / self._weight
        return Centre.made(towards, floored(mean_C, len(self._place_N)), self._ids, self._place_N.copy())
