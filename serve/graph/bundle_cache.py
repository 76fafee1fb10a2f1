"""Keep a replica's open bundles by id: usually one, two while one follows the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

KEEP_S = 60.0
"""Idle time after which a bundle that is not the newest is closed: time to go back at once."""


class BundleCache(Generic[T]):
    """A cache that opens each bundle once, off the event loop; callers meanwhile wait for it.

    Args:
        open_: opens a bundle by its id; may take seconds.
        keep_s: see :data:`KEEP_S`.
        clock: monotonic, in seconds.
    """

    def __init__(
        self,
        open_: Callable[[str], T],
        keep_s: float = KEEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open, self._keep_s, self._clock = open_, keep_s, clock
        self._opened: dict[str, asyncio.Future[T]] = {}
        self._used: dict[str, float] = {}
        self._newest = ""

    async def get(self, bundle_id: str) -> T:
        """Return an open bundle. Opening that fails raises, and is tried again by the next call."""
        self._used[bundle_id] = self._clock()
        opening = self._opened.get(bundle_id)
        if opening is not None and opening.done() and not opening.cancelled() and not opening.exception():
            return opening.result()
        if opening is None or opening.done():
            opening = asyncio.ensure_future(asyncio.to_thread(self._open, bundle_id))
            self._opened[bundle_id] = opening
        # Shielded: one caller that gives up must not take it from the others.
        found = await asyncio.shield(opening)
        self._used[bundle_id] = self._clock()  # opening may have taken longer than ``keep_s``
        self.sweep()
        return found

    async def prepare(self, bundle_id: str) -> T:
        """Open a bundle and keep it as the newest."""
        found = await self.get(bundle_id)
        self._newest = bundle_id
        asyncio.get_running_loop().call_later(self._keep_s, self.sweep)
        return found

    def sweep(self) -> None:
        """Close bundles that are not the newest and were idle for ``keep_s``."""
        now = self._clock()
        for bundle_id, future in list(self._opened.items()):
            idle = now - self._used[bundle_id] >= self._keep_s
            failed = future.done() and (future.cancelled() or future.exception() is not None)
            if failed or (idle and future.done() and bundle_id != self._newest):
                del self._opened[bundle_id], self._used[bundle_id]

    @property
    def ids(self) -> list[str]:
        """The ids of the bundles that are open or are being opened."""
        return list(self._opened)
