"""Keep a state of every mention, and compare others with the nearest of an entity's (CGExpan).

An entity is not one vector here but the hidden states at the mask of all its drawn sentences: what a
query is like is measured by the mean of its ``k`` largest cosines to these, so that one apt context in many
is enough (CGExpan, section 3.3).

**Size.** 394,097 sentences of 384 numbers in float16 are 303 MB, of 768 605 MB. They are mapped, and of a
query only the rows of the 500 globally nearest entities are read.

Shape letters: N entities, M mentions, D dimensions, Q queries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.retrieval.by_entity import ByEntity
from engine.retrieval.index import Vectors, unit
from engine.storage.mapped import flush, new_array

PROBING = "probing"
"""A bundle's folder with the states of all mentions ("mentions") and the model that made them ("model")."""

Floats = npt.NDArray[np.float64]

COSINES = 1 << 22
"""Cosines that are in memory at a time."""


class MentionStates:
    """The states of all mentions, sorted by entity.

    Args:
        starts_N1: int64 [N + 1], where each entity's mentions begin.
        states_MD: float16 unit vectors.
    """

    def __init__(self, starts_N1: npt.NDArray[np.int64], states_MD: npt.NDArray[np.float16]) -> None:
        self.starts_N1, self._states_MD = starts_N1, states_MD
        self.counts_N = np.diff(starts_N1)
        """Mentions of each entity."""

    @classmethod
    def read(cls, folder: Path) -> MentionStates:
        """Map the files of a folder.

        Raises:
            BundleError: they do not fit each other.
        """
        starts, states = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in ("starts", "states")
        )
        kinds = (starts.dtype, states.dtype) == (np.int64, np.float16)
        if not kinds or states.ndim != 2 or not len(starts) or starts[-1] != len(states):
            raise BundleError(
                f"{folder.name}: starts {starts.dtype} {starts.shape} and states {states.dtype} "
                f"{states.shape} do not make states of mentions; build the index again"
            )
        return cls(np.asarray(starts), states)

    @classmethod
    def write_parts(
        cls,
        folder: Path,
        counts_N: npt.NDArray[np.int64],
        dim: int,
        parts: Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.float16]]],
    ) -> MentionStates:
        """Write states that come part by part, and map them: no process holds all.

        Args:
            folder: receives the files.
            counts_N: mentions of each entity, in all parts.
            dim: D.
            parts: entities [n] of a part's mentions and their states [n, D], float16 unit vectors. Those of
                an earlier part come first.
        """
        folder.mkdir(parents=True, exist_ok=True)
        by_entity = ByEntity(counts_N)
        np.save(folder / "starts.npy", by_entity.starts_N1, allow_pickle=False)
        states_MD = new_array(folder / "states.npy", np.float16, (int(by_entity.starts_N1[-1]), dim))
        for entities_n, states_nD in parts:
            states_MD[by_entity.places(entities_n)] = states_nD
        flush(states_MD)
        return cls(by_entity.starts_N1, states_MD)

    def write(self, folder: Path) -> None:
        """Write ``starts.npy`` and ``states.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "starts.npy", self.starts_N1, allow_pickle=False)
        np.save(folder / "states.npy", self._states_MD, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.starts_N1) - 1

    def of(self, entity: int) -> Vectors:
        """Return the states of an entity's mentions, float32 [m, D]."""
        begin, end = self.starts_N1[entity], self.starts_N1[entity + 1]
        return np.asarray(self._states_MD[begin:end], np.float32)

    def means(self) -> Vectors:
        """Return the unit mean of every entity's states, float32 [N, D]; zeros for none."""
        found = np.zeros((len(self), self._states_MD.shape[1]), np.float32)
        for entity in np.flatnonzero(self.counts_N).tolist():
            found[entity] = self.of(entity).mean(axis=0)
        return unit(found)

    def nearness(self, queries_QD: Vectors, entities: Sequence[int], k: int, together: int = 1) -> Floats:
        """Return the mean of the k largest cosines of each query to each entity, [Q, n].

        An entity with fewer than k mentions has no say: zero, as in the authors' program. Entities of as many
        mentions are compared in one product.

        Args:
            queries_QD: unit vectors.
            entities: ids [n].
            k: mentions that count.
            together: so many queries in a row are one, of which the best counts at each mention; the result
                is [Q / together, n] then.
        """
        found = np.zeros((len(queries_QD) // together, len(entities)))
        for places, states_nmD in self._alike(np.asarray(entities, np.int64), k, len(queries_QD)):
            n, m, d = states_nmD.shape
            cosines = (queries_QD @ states_nmD.reshape(-1, d).T).astype(np.float64)
            found[:, places] = best_mean(cosines.reshape(-1, together, n, m).max(axis=1), k)
        return found

    def _alike(
        self, entities: npt.NDArray[np.int64], k: int, queries: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], Vectors]]:
        """Yield places of entities of the same number m of mentions, k at least, and the states [n, m, D]."""
        counts = self.counts_N[entities]
        for m in np.unique(counts[counts >= k]).tolist():
            (places,) = np.nonzero(counts == m)
            size = max(1, COSINES // (m * max(1, queries)))
            for start in range(0, len(places), size):
                some = places[start : start + size]
                rows = self.starts_N1[entities[some]][:, None] + np.arange(m)
                yield some, np.asarray(self._states_MD[rows], np.float32)


def best_mean(values_Qnm: Floats, k: int) -> Floats:
    """Return the mean of the k largest values of each row, of rows of at least k."""
    return np.asarray(np.partition(values_Qnm, values_Qnm.shape[-1] - k, axis=-1)[..., -k:].mean(axis=-1))
