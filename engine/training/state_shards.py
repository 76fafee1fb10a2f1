"""Read of a cache in a bucket, in each worker of a training, the parts of that worker alone.

Cached states are most of what a training reads: of ten million sentences of 34 tokens and 384 dimensions
261 GB. On a disk that all workers see they are mapped, and nothing is copied. From a bucket a machine copies
what it reads: so every part belongs to one worker, which takes its rows out of each global batch, and a
machine has the states of its own workers' parts. Batches are the same on any number of workers. A loss that
is a sum over rows does not depend on who adds which; one that compares the rows of a batch gets what the
trained layers made of them from all workers (:func:`engine.losses.gather.gathered`): D numbers a row, where
the states of its L tokens are L times as many. Every worker still reads the model input of all parts (4 bytes
a token, where the states of 384 dimensions have 768): order and draws are of all sentences.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Sequence

import numpy as np

from engine.storage.npy_rows import NpyRows
from engine.storage.store import Store, machine_cache
from engine.training.cache import CachedStates, FrozenCache
from engine.training.order import Rows

PARTS_A_WORKER = 8
"""Parts that there are for a worker at least: of fewer, one worker might have many more rows than another."""


def open_share(cache: FrozenCache, rank: int, world: int, with_states: bool = True) -> CachedStates:
    """Open what a worker reads of a cache: all of it where that copies nothing, or else its own parts.

    Args:
        cache: the filled cache.
        rank: of the worker.
        world: number of workers.
        with_states: it reads states; without, it copies none.
    """
    shares = shares_of_workers(cache, world)
    if shares is None:
        return cache.open() if with_states else cache.open_rows()
    return StateShard(cache, shares, shares[rank] if with_states else ())


def shares_of_workers(cache: FrozenCache, world: int) -> list[list[int]] | None:
    """Return the parts of each worker; None: each may take any row, as all read all parts.

    That is so on a disk, for one worker, and where parts are so few that shares would be uneven.
    """
    copies = not all(one.is_local for one in cache.states)
    if world == 1 or not copies or len(cache.states) < PARTS_A_WORKER * world:
        return None
    return parts_of_workers(cache.inputs.rows, world)


def copied_states(cache: FrozenCache, rank: int, world: int) -> list[Store]:
    """Return the files that :func:`open_share` brings to a worker's machine."""
    shares = shares_of_workers(cache, world)
    files = cache.states if shares is None else [cache.states[part] for part in shares[rank]]
    return [file for file in files if not file.is_local]


def parts_of_workers(rows: Sequence[int], world: int) -> list[list[int]]:
    """Return the parts of each worker, so that all have about as many rows; the same on every worker.

    Args:
        rows: of each part.
        world: number of workers.
    """
    found: list[list[int]] = [[] for _ in range(world)]
    least = [(0, rank) for rank in range(world)]
    for part in sorted(range(len(rows)), key=lambda part: (-rows[part], part)):
        held, rank = heapq.heappop(least)
        found[rank].append(part)
        heapq.heappush(least, (held + rows[part], rank))
    return [sorted(parts) for parts in found]


class StateShard(CachedStates):
    """All rows of a training set, with the states of some parts on this machine.

    Rows of other parts are read from where they are, whenever they are asked for.

    Args:
        cache: of all parts.
        shares: the parts of each worker.
        copied: parts that are copied to this machine.
    """

    def __init__(self, cache: FrozenCache, shares: Sequence[Sequence[int]], copied: Collection[int]) -> None:
        states = [
            one.local_copy(machine_cache()) if part in copied else NpyRows(one)
            for part, one in enumerate(cache.states)
        ]
        super().__init__(cache.rows_of_parts(), states, sum(cache.inputs.rows))
        self._owner = np.empty(len(states), np.int64)
        for worker, parts in enumerate(shares):
            self._owner[list(parts)] = worker

    def owners_of(self, batch: Rows, world: int, together: int = 1) -> Rows:
        """Return the worker of each row's part."""
        return self._owner[self.parts_of(batch)]

    def rows_of_worker(self, rank: int) -> Rows:
        """Return the rows of its parts."""
        own = np.flatnonzero(self._owner == rank)
        return np.concatenate([np.empty(0, np.int64), *(np.arange(*self._first[p : p + 2]) for p in own)])
