"""Decide when a checkpoint is due: by time, and by how long writing one takes."""

from __future__ import annotations

import time
from collections.abc import Callable


class CheckpointPace:
    """The time between checkpoints of a run.

    Args:
        seconds: between the end of one and the begin of the next, at least.
        share: of the time that writing may take; 1: however long.
        clock: seconds that only grow.
    """

    def __init__(self, seconds: float, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._least, self._share, self._clock = seconds, share, clock
        self.interval, self._since = seconds, clock()

    def due(self) -> bool:
        """Return whether the time between two checkpoints is over."""
        return self._clock() - self._since > self.interval

    def wrote(self, took: float) -> str | None:
        """Begin the next interval, after a checkpoint that took so many seconds.

        Returns:
            A sentence for the user where the interval is longer than what was asked for, the first time.
        """
        said = self.interval > self._least
        self._since = self._clock()
        # Of took + interval, took is to be the share.
        self.interval = max(self._least, took * (1 - self._share) / self._share)
        if said or self.interval <= self._least:
            return None
        return (
            f"writing a checkpoint took {took:.1f} s: the next ones are {self.interval:.0f} s apart, so that "
            f"it takes {self._share:.0%} of the time"
        )
