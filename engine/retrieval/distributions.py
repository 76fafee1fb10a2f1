"""Keep what a trained head predicts of every entity: its distribution and log-distribution, both sparse.

An entity's contexts each predict a distribution over the N entities of the vocabulary. Kept of it are

- p, the mean of the distributions over its contexts (MultiExpan, "Entity Expansion");
- l, the mean of the LOG-distributions, less its mean over the vocabulary, over its deviation there. That is
  the authors' program (it is ProbExpan's too); the mean over contexts of a logarithm is not the logarithm
  of the mean, so it cannot be made of p later.

**Size.** Dense, 50,000 entities are 2 x 50,000 x 50,000 x 4 B = 20 GB. Here the M = 256 largest of each
row are kept, as an id (4 B) and a value (4 B), and one value stands for the others, their mean: the floor of
the row. That is 2 x 50,000 x (256 x 8 + 4) B = 205 MB, memory-mapped, of which a search touches the rows of
its members and of its windows.

**What is lost.** Up to N = M nothing. Beyond, only what is read of a row outside its M largest. Mean and
deviation of l, and the mean of log p over the vocabulary, which the divergence of
:mod:`engine.retrieval.window` needs, are taken before the row is cut. So the standardised values that are
kept are those of the whole row, and an entity that no member's M largest hold is ordered by the members'
floors: behind what some member predicts. Measured for 5,000 made-up entities of 50 classes and M = 256
(``python -m benchmarks.window_search``): 82 % of 200 that are found are the dense search's.

Knows nothing of encoders or queries. Shape letters: N entities, M kept, B rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids, Scores
from engine.storage.mapped import flush, new_array

Real = npt.NDArray[np.float64]

KEPT = 256
"""Values that are kept of a row unless said otherwise."""

LEAST = 1e-30
"""The least probability of which a logarithm is taken: softmax in float32 ends in zeros below it."""

EVEN = 1e-9
"""A log-distribution of less deviation says nothing: what differs in it is rounding."""


def distributions_folder(view: str) -> str:
    """Return the name of the bundle's folder that holds the entities' distributions of a view."""
    return f"distributions/{view}"


def log_distributions_folder(view: str) -> str:
    """Return the name of the folder within it that holds their log-distributions."""
    return f"{distributions_folder(view)}/log"


@dataclass(frozen=True)
class SparseRows:
    """Rows over the vocabulary of which the largest values are kept.

    Args:
        ids_BM: int32, the columns that are kept, ascending in a row.
        values_BM: float32, their values.
        rest_B: float32, the value of every other column.
    """

    ids_BM: Ids
    values_BM: Scores
    rest_B: Scores

    @classmethod
    def of(cls, dense_BN: npt.NDArray[np.floating], m: int = KEPT) -> SparseRows:
        """Keep the m largest values of each row, at most all N, and the mean of the others."""
        n = dense_BN.shape[1]
        m = min(m, n)
        ids_BM = np.sort(np.argpartition(dense_BN, n - m, axis=1)[:, n - m :], axis=1)
        kept_BM = np.take_along_axis(dense_BN, ids_BM, axis=1).astype(np.float64)
        rest_B = (dense_BN.sum(axis=1, dtype=np.float64) - kept_BM.sum(axis=1)) / max(n - m, 1)
        # A mean is not above what is kept, and of probabilities not below zero, whatever is rounded.
        rest_B = np.clip(
            rest_B, min(0.0, float(dense_BN.min(initial=0))), kept_BM.min(axis=1, initial=np.inf)
        )
        if m == n:
            rest_B = np.zeros_like(rest_B)
        return cls(ids_BM.astype(np.int32), kept_BM.astype(np.float32), rest_B.astype(np.float32))

    @classmethod
    def concatenate(cls, parts: Sequence[SparseRows]) -> SparseRows:
        """Return the rows of all parts after one another."""
        return cls(*(np.concatenate([getattr(p, name) for p in parts]) for name in cls.__annotations__))

    @classmethod
    def read(cls, folder: Path) -> SparseRows:
        """Map ``ids.npy``, ``values.npy`` and ``rest.npy`` of a folder.

        Raises:
            BundleError: the files do not fit each other.
        """
        ids, values, rest = (load(folder / f"{name}.npy") for name in ("ids", "values", "rest"))
        kinds = (ids.dtype, values.dtype, rest.dtype) == (np.int32, np.float32, np.float32)
        if not kinds or ids.ndim != 2 or ids.shape != values.shape or rest.shape != ids.shape[:1]:
            raise BundleError(
                f"{folder.name}: ids {ids.dtype} {ids.shape}, values {values.dtype} {values.shape} and rest "
                f"{rest.dtype} {rest.shape} do not make distributions; build the index again"
            )
        return cls(ids, values, rest)

    @classmethod
    def new(cls, folder: Path, n: int, m: int = KEPT) -> SparseRows:
        """Make the three files of N rows over N columns, mapped, to be filled by :meth:`put`."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = n, min(m, n)
        return cls(
            new_array(folder / "ids.npy", np.int32, kept),
            new_array(folder / "values.npy", np.float32, kept),
            new_array(folder / "rest.npy", np.float32, (n,)),
        )

    def put(self, first: int, rows: SparseRows) -> None:
        """Put some rows in their place, of rows that are mapped."""
        some = slice(first, first + len(rows))
        self.ids_BM[some], self.values_BM[some], self.rest_B[some] = rows.ids_BM, rows.values_BM, rows.rest_B

    def write(self, folder: Path) -> None:
        """Write the three files."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, column in (("ids", self.ids_BM), ("values", self.values_BM), ("rest", self.rest_B)):
            np.save(folder / f"{name}.npy", column, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.rest_B)

    def dense(self, rows: npt.ArrayLike, n: int) -> Scores:
        """Return some rows whole, float32 [B, N], for N columns."""
        places = np.asarray(rows, np.int64)
        whole_BN = np.repeat(self.rest_B[places, None], n, axis=1)
        np.put_along_axis(whole_BN, self.ids_BM[places], self.values_BM[places], axis=1)
        return whole_BN

    def at(self, rows: Ids, columns: Ids, n: int) -> Real:
        """Return the values of some rows in some columns, each once, of n: float64 [rows, columns].

        M looks a row, whatever the columns.
        """
        place_N = np.zeros(n, np.int32)
        place_N[columns] = np.arange(1, len(columns) + 1)
        places_BM = place_N[self.ids_BM[rows]]
        found = np.repeat(self.rest_B[rows, None].astype(np.float64), len(columns), axis=1)
        kept = places_BM > 0
        found[np.nonzero(kept)[0], places_BM[kept] - 1] = self.values_BM[rows][kept]
        return found

    def add_to(self, sums_N: Real, row: int) -> None:
        """Add a row to a vector, less the row's floor, which all columns share: M additions."""
        sums_N[self.ids_BM[row]] += self.values_BM[row].astype(np.float64) - float(self.rest_B[row])


@dataclass(frozen=True)
class EntityDistributions:
    """The distributions and log-distributions of entities, a row each.

    Rows without any probability are entities without a context: "absent".

    Args:
        probabilities: p; a row sums to one over all N columns, or to nothing.
        logs: l, standardised over the vocabulary: mean 0 and deviation 1; zeros where p is even.
        mean_log_B: float64, the mean over the vocabulary of log p.
    """

    probabilities: SparseRows
    logs: SparseRows
    mean_log_B: Real

    @classmethod
    def of(
        cls, means_BN: npt.NDArray[np.floating], log_means_BN: npt.NDArray[np.floating], m: int = KEPT
    ) -> EntityDistributions:
        """Return the sparse form of some entities.

        Args:
            means_BN: the mean over an entity's contexts of the predicted distributions, up to a factor; a row
                of zeros is an entity without a context.
            log_means_BN: the mean over its contexts of their logarithms, up to what is added to all columns.
            m: values to keep of a row.
        """
        total_B = means_BN.sum(axis=1, dtype=np.float64)
        shares_BN = means_BN / np.where(total_B > 0, total_B, 1)[:, None]
        mean_log_B = np.log(np.maximum(shares_BN, LEAST)).mean(axis=1, dtype=np.float64)
        return cls(SparseRows.of(shares_BN, m), SparseRows.of(standardised(log_means_BN), m), mean_log_B)

    @classmethod
    def concatenate(cls, parts: Sequence[EntityDistributions]) -> EntityDistributions:
        """Return the entities of all parts after one another."""
        return cls(
            SparseRows.concatenate([p.probabilities for p in parts]),
            SparseRows.concatenate([p.logs for p in parts]),
            np.concatenate([p.mean_log_B for p in parts]),
        )

    @classmethod
    def write_parts(
        cls, folder: Path, n: int, parts: Iterable[tuple[int, EntityDistributions]], m: int = KEPT
    ) -> None:
        """Write the distributions of N entities that come some at a time: no process holds all.

        Args:
            folder: receives the files (:func:`distributions_folder`).
            n: N.
            parts: the first entity, and distributions of it and those that follow; in any order.
            m: values that are kept of a row.
        """
        log = folder / "log"
        probabilities, logs = SparseRows.new(folder, n, m), SparseRows.new(log, n, m)
        mean_log_B = new_array(log / "mean.npy", np.float64, (n,))
        for first, part in parts:
            probabilities.put(first, part.probabilities)
            logs.put(first, part.logs)
            mean_log_B[first : first + len(part)] = part.mean_log_B
        for rows in (probabilities, logs):
            flush(rows.ids_BM, rows.values_BM, rows.rest_B)
        flush(mean_log_B)

    @classmethod
    def read(cls, folder: Path) -> EntityDistributions:
        """Map the files of a folder (:func:`distributions_folder`).

        Raises:
            BundleError: the files do not fit each other, or are of a version that kept no log-distributions.
        """
        if not (folder / "log").is_dir():
            raise BundleError(
                f"{folder}: distributions without log-distributions, as earlier versions made them; run "
                "`seedset build-index` again, which makes both (the encoder need not be trained again)",
                public=f"{folder.name}: distributions without log-distributions; build the index again",
            )
        found = cls(
            SparseRows.read(folder), SparseRows.read(folder / "log"), load(folder / "log" / "mean.npy")
        )
        if not len(found.probabilities) == len(found.logs) == len(found.mean_log_B):
            raise BundleError(
                f"{folder.name}: {len(found.probabilities)} distributions, {len(found.logs)} "
                f"log-distributions and {len(found.mean_log_B)} means of logarithms do not fit; build the "
                "index again"
            )
        return found

    def write(self, folder: Path) -> None:
        """Write both, the log-distributions into ``log/``."""
        self.probabilities.write(folder)
        self.logs.write(folder / "log")
        np.save(folder / "log" / "mean.npy", self.mean_log_B, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.mean_log_B)

    def prepare(self) -> None:
        """Make now what the first search would make: a look at all ids."""
        _ = self.own_B, self.present_B

    @cached_property
    def own_B(self) -> Real:
        """What each of all N entities predicts of itself, float64 [N], not below :data:`LEAST`."""
        found = self.probabilities.rest_B.astype(np.float64)
        rows, places = np.nonzero(self.probabilities.ids_BM == np.arange(len(self))[:, None])
        found[rows] = self.probabilities.values_BM[rows, places]
        return np.maximum(found, LEAST)

    @cached_property
    def present_B(self) -> npt.NDArray[np.bool_]:
        """The entities that have a distribution, bool."""
        return np.asarray(self.probabilities.values_BM.any(axis=1) | (self.probabilities.rest_B > 0))


def standardised(rows_BN: npt.NDArray[np.floating]) -> Real:
    """Return rows less their mean over their deviation, float64; zeros where a row is even."""
    wide_BN = rows_BN.astype(np.float64)
    wide_BN -= wide_BN.mean(axis=1, keepdims=True)
    deviation_B1 = wide_BN.std(axis=1, keepdims=True)
    varies_B1 = deviation_B1 > EVEN
    return np.where(varies_B1, wide_BN / np.where(varies_B1, deviation_B1, 1), 0)


def load(path: Path) -> npt.NDArray[Any]:
    """Map an npy file, as a plain array."""
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
