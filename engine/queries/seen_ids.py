"""Remember which ids of millions of queries were met, and where, at 16 bytes an id."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

RECENT = 1 << 16
"""Ids that are kept as Python numbers; then they become a sorted run."""

Run = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
"""Hashes, sorted, and the number of each."""


class SeenIds:
    """A set of ids, each with a number. It holds hashes of 64 bits.

    Two of ten million ids share a hash with a probability of 3 in a million; the second one is then said to
    be taken.
    """

    def __init__(self) -> None:
        self._recent: dict[int, int] = {}
        self._runs: list[Run] = []

    def claim(self, text: str, number: int) -> int | None:
        """Return the number of an id that was claimed before; else claim it and return None."""
        key = int.from_bytes(
            hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little"
        )
        if (found := self._find(key)) is not None:
            return found
        self._recent[key] = number
        if len(self._recent) == RECENT:
            self._settle()
        return None

    def _find(self, key: int) -> int | None:
        if key in self._recent:
            return self._recent[key]
        wanted = np.uint64(key)
        for hashes, numbers in self._runs:
            place = int(np.searchsorted(hashes, wanted))
            if place < len(hashes) and hashes[place] == wanted:
                return int(numbers[place])
        return None

    def _settle(self) -> None:
        """Make a run of what is recent; runs of like sizes become one, so that there are few."""
        run = (
            np.fromiter(self._recent.keys(), np.uint64, len(self._recent)),
            np.fromiter(self._recent.values(), np.int64, len(self._recent)),
        )
        self._recent = {}
        while self._runs and len(self._runs[-1][0]) <= len(run[0]):
            last = self._runs.pop()
            run = (np.concatenate([last[0], run[0]]), np.concatenate([last[1], run[1]]))
        order = np.argsort(run[0], kind="stable")
        self._runs.append((run[0][order], run[1][order]))
