"""Read of a cache in a bucket, in each worker of a training, the parts of that worker alone.

Cached states are most of what a training reads: of ten million sentences of 34 tokens and 384 dimensions
261 GB. On a disk that all workers see they are mapped, and nothing is copied. From a bucket a machine copies
what it reads: so every part belongs to one worker, which takes its rows out of each global batch, and a
machine has the states of its own workers' parts. Batches are the same on any number of workers, and a batch's
loss is a sum over its rows, so that it does not matter who adds which. Every worker still reads the model
input of all parts (4 bytes a token, where the states of 384 dimensions have 768): the order of an epoch is
by the lengths of all sentences.

Not so for what compares the rows of a batch with each other, as the contrast and the multi-modal objectives
do: these take a slice of each batch (:func:`engine.training.order.rank_slice`) from all parts.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from engine.storage.store import machine_cache
from engine.training.cache import CachedStates, FrozenCache, InputRows, has_text, put
from engine.training.order import Rows

Tensor = torch.Tensor

PARTS_A_WORKER = 8
"""Parts that there are for a worker at least: of fewer, one worker might have many more rows than another."""


def open_share(cache: FrozenCache, rank: int, world: int) -> CachedStates | StateShard:
    """Open what a worker reads of a cache: all of it where that copies nothing, or else its own parts.

    Args:
        cache: the filled cache.
        rank: of the worker.
        world: number of workers.
    """
    copies = not all(one.is_local for one in cache.states)
    if world == 1 or not copies or len(cache.states) < PARTS_A_WORKER * world:
        return cache.open()
    return StateShard(cache, parts_of_workers(cache.inputs.rows, world)[rank])


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


class StateShard:
    """The rows of a training set, of which one worker has the states of some parts.

    In memory is a byte a row (two where a sentence has more than 255 tokens), and 10 more of each of its own.

    Args:
        cache: of all parts.
        own: the parts whose states are read.
    """

    def __init__(self, cache: FrozenCache, own: Collection[int]) -> None:
        sizes = np.array(cache.inputs.rows)
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self.lengths: npt.NDArray[np.unsignedinteger] = np.zeros(self._first[-1], np.uint8)

        def rows() -> Iterator[InputRows]:
            for part, one in enumerate(cache.rows_of_parts()):
                at = slice(*self._first[part : part + 2])
                self.lengths = put(self.lengths, at, one.lengths)
                if part in own:
                    yield one

        paths = [cache.states[part].local_copy(machine_cache()) for part in sorted(own)]
        self._own = CachedStates(rows(), paths, int(sizes[sorted(own)].sum()))
        self._is_own = np.isin(np.arange(len(sizes)), sorted(own))
        # By how much a row's place among all is after its place among the own ones.
        self._passed_over = np.concatenate([[0], np.cumsum(np.where(self._is_own, 0, sizes))])[:-1]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def with_text(self) -> npt.NDArray[np.int64]:
        """See :class:`engine.training.cache.CachedStates`."""
        return has_text(self.lengths)

    def share_of(self, batch: Rows, rank: int, world: int) -> Rows:
        """Return the rows of a batch that are in own parts, in its order."""
        return batch[self._is_own[self._parts_of(batch)]]

    def gather(self, rows: Rows, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what :meth:`engine.training.cache.CachedStates.gather` does.

        Raises:
            ValueError: a row is in another worker's part.
        """
        parts = self._parts_of(rows)
        if not self._is_own[parts].all():
            raise ValueError(
                f"rows of the parts {np.unique(parts[~self._is_own[parts]])} are not this worker's"
            )
        return self._own.gather(rows - self._passed_over[parts], dtype)

    def _parts_of(self, rows: Rows) -> npt.NDArray[np.int64]:
        return np.searchsorted(self._first, rows, side="right") - 1
