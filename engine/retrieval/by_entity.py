"""Arrange rows that come part by part entity by entity, without holding them: say where each one goes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class ByEntity:
    """Places of rows, entity by entity, within an entity in the order in which they come.

    Args:
        counts_N: how many rows each entity has.
    """

    def __init__(self, counts_N: Rows) -> None:
        self.starts_N1: Rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts_N, dtype=np.int64)])
        """Where each entity's rows begin."""
        self._next_N = self.starts_N1[:-1].copy()

    def places(self, entities_n: npt.NDArray[np.integer]) -> Rows:
        """Return where the next rows go, given their entities, int64 [n]."""
        order = np.argsort(entities_n, kind="stable")
        ordered = entities_n[order]
        found = np.empty(len(order), np.int64)
        found[order] = self._next_N[ordered] + np.arange(len(order)) - np.searchsorted(ordered, ordered)
        unique, counts = np.unique(ordered, return_counts=True)
        self._next_N[unique] += counts
        return found

    def ranges(self, rows: int) -> Iterator[tuple[int, int]]:
        """Yield the first and the last entity, exclusive, of ranges of about so many rows or entities."""
        first, n_entities = 0, len(self._next_N)
        while first < n_entities:
            end = int(np.searchsorted(self.starts_N1, self.starts_N1[first] + rows, side="right")) - 1
            end = min(max(end, first + 1), first + rows, n_entities)
            yield first, end
            first = end
