"""Order an epoch's sentences by seed and epoch, never by workers.

Every sentence is seen once an epoch, on any number of workers, and a resumed run goes on in the same
order: batches are cut globally, and a worker takes its slice of each.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

POOL_BATCHES = 64
"""Sentences are shuffled, then sorted by length inside pools of this many batches: little padding,
and batches that stay as good as random."""


def epoch_batches(lengths: npt.NDArray[np.integer], batch_size: int, seed: int, epoch: int) -> list[Rows]:
    """Return the row numbers of each batch of one epoch.

    Batches differ in size by at most one, so that none is a remainder with a noisy gradient. All are parts of
    one array: of many sentences that is most of what an epoch takes.

    Args:
        lengths: tokens of every row.
        batch_size: the most rows a batch holds, over all workers.
        seed: of the run.
        epoch: counted from 0.
    """
    if not len(lengths):
        return []
    rng = np.random.default_rng([seed, epoch])
    rows = rng.permutation(len(lengths))
    n_batches = -(-len(rows) // batch_size)
    n_pools = -(-n_batches // POOL_BATCHES)
    for pool in np.array_split(rows, n_pools):
        pool[:] = pool[np.argsort(lengths[pool], kind="stable")]
    batches = np.array_split(rows, n_batches)
    return [batches[i] for i in rng.permutation(n_batches)]


def rank_slice(batch: Rows, rank: int, world: int) -> Rows:
    """Return one worker's rows of a batch: every world-th, so that lengths are spread evenly."""
    return batch[rank::world]
