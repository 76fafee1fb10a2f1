"""Tell what was seen before, of as many things as a corpus has sentences."""

from __future__ import annotations

import numpy as np

LATEST = 1 << 20
"""Keys at least that are gathered in a set, at 60 to 100 bytes each, before they go to the others."""
LATEST_SHARE = 8
"""One in so many keys may be in the set, so that the others are sorted seldom."""


class SeenKeys:
    """64-bit keys that were seen: 8 bytes each, but for the latest."""

    def __init__(self) -> None:
        self._sorted = np.empty(0, np.int64)
        self._latest: set[int] = set()

    def add(self, key: int) -> bool:
        """Add a key, of Python's ``hash``, and return whether it is new."""
        if key in self._latest or (len(self._sorted) and self._is_sorted(key)):
            return False
        self._latest.add(key)
        if len(self._latest) >= max(LATEST, len(self._sorted) // LATEST_SHARE):
            more = np.fromiter(self._latest, np.int64, len(self._latest))
            self._latest = set()
            self._sorted = np.concatenate([self._sorted, more])
            self._sorted.sort()
        return True

    def _is_sorted(self, key: int) -> bool:
        place = int(self._sorted.searchsorted(key))
        return place < len(self._sorted) and int(self._sorted[place]) == key
