"""Draw from a seed which faults come when; knows nothing of the cluster that they come to."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

EVERY_S, PROBABILITY = 5.0, 0.3

STALE_S = 60.0
"""Seconds after which no answer may be of a bundle that is not the current one any more. A change that a
fault broke off is tried again after 30 s, and a replica takes some time to be back."""

Kind = Literal["worker", "replica", "proxy", "raylet", "publisher", "batch", "job stop"]
"""What dies: a worker of a batch, an index or a training; a replica of the service; its HTTP proxy; a whole
node; the driver of a publication; that of a batch; the submitted training, by ``ray job stop``."""

KINDS: tuple[Kind, ...] = get_args(Kind)


class Fault(NamedTuple):
    """A fault of the schedule.

    Args:
        at_s: seconds after the load began.
        kind: what dies.
        pick: in [0, 1): which of several, see :func:`picked`.
    """

    at_s: float
    kind: Kind
    pick: float

    def picked(self, count: int) -> int:
        """Return the place of the one that dies among ``count`` in an order of their own."""
        return int(self.pick * count)


def schedule(seed: int, seconds: float, every_s: float = EVERY_S, share: float = PROBABILITY) -> list[Fault]:
    """Return the faults of a run; the same for the same arguments, and a longer run begins with a shorter's.

    Args:
        seed: of all that is drawn.
        seconds: that the run takes.
        every_s: time between two draws.
        share: probability of a fault at each.
    """
    return list(_faults(random.Random(seed), seconds, every_s, share))


def _faults(drawn: random.Random, seconds: float, every_s: float, share: float) -> Iterator[Fault]:
    for number in range(1, int(seconds / every_s) + 1):
        # Three numbers a time, fault or none, so that another probability moves no fault.
        comes, which, pick = drawn.random(), drawn.random(), drawn.random()
        if comes < share and number * every_s < seconds:
            yield Fault(number * every_s, KINDS[int(which * len(KINDS))], pick)
