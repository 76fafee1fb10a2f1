"""Order an epoch's sentences by seed and epoch, never by workers.

Every sentence is seen once an epoch, on any number of workers, and a resumed run goes on in the same
order: batches are cut globally, and a worker takes its slice of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]
"""Row numbers. Orders of a whole corpus may be int32, a batch that is trained on is not."""

POOL_BATCHES = 64
"""Sentences are shuffled, then sorted by length inside pools of this many batches: little padding,
and batches that stay as good as random."""


def row_type(n: int) -> type[np.signedinteger]:
    """Return the narrower of int32 and int64 that holds the numbers of n rows."""
    return np.int32 if n <= np.iinfo(np.int32).max else np.int64


def epoch_batches(
    lengths: npt.NDArray[np.integer], batch_size: int, seed: int, epoch: int, rows: Rows | None = None
) -> list[Rows]:
    """Return the row numbers of each batch of one epoch.

    Batches differ in size by at most one, so that none is a remainder with a noisy gradient. All are parts of
    one array of the narrowest type (:func:`row_type`), and that is nearly all that an epoch takes.

    Args:
        lengths: tokens of every row.
        batch_size: the most rows a batch holds, over all workers.
        seed: of the run.
        epoch: counted from 0.
        rows: those that are trained on; None: all.
    """
    kind = row_type(len(lengths))
    order = np.arange(len(lengths), dtype=kind) if rows is None else rows.astype(kind)
    if not len(order):
        return []
    rng = np.random.default_rng([seed, epoch])
    rng.shuffle(order)
    n_batches = -(-len(order) // batch_size)
    n_pools = -(-n_batches // POOL_BATCHES)
    for pool in np.array_split(order, n_pools):
        pool[:] = pool[np.argsort(lengths[pool], kind="stable")]
    batches = np.array_split(order, n_batches)
    return [batches[i] for i in rng.permutation(n_batches)]


def rows_by_entity(entity_id: npt.NDArray[np.integer], rows: Rows) -> Rows:
    """Return some rows, those of an entity after one another in their order, of the narrowest type.

    Args:
        entity_id: of every row.
        rows: ascending.
    """
    return rows.astype(row_type(len(entity_id)))[np.argsort(entity_id[rows], kind="stable")]


def draws_at(seed: Sequence[int], rows: Rows) -> npt.NDArray[np.float64]:
    """Return the numbers of some rows, where each has one of its own: ``default_rng(seed).random(n)[rows]``.

    The generator leaps from one to the next: of ten million rows the numbers of all would take 80 MB a step.

    Args:
        seed: of the generator.
        rows: in any order; one may come twice.
    """
    rng = np.random.PCG64(seed)
    one = np.random.Generator(rng)
    places, back = np.unique(rows, return_inverse=True)
    found = np.empty(len(places))
    for i, leap in enumerate(np.diff(places, prepend=-1).tolist()):
        rng.advance(leap - 1)
        found[i] = one.random()
    return found[back]


def rank_slice(batch: Rows, rank: int, world: int) -> Rows:
    """Return one worker's rows of a batch: every world-th, so that lengths are spread evenly."""
    return batch[rank::world]
