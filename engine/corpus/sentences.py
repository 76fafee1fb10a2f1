"""The sentences that a bundle shows of its entities: the first few of each, sorted by entity."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.corpus.schema import MENTION_SCHEMA
from engine.workspace import Workspace

PER_ENTITY = 8
"""Sentences kept of an entity."""

MAX_CHARACTERS = 500
"""Longer sentences are not shown, so they are not kept."""

GROUP_ROWS = 250
"""Rows of a row group: what is read to show the sentences of one entity. 1,000 take twice the time for 50."""


def write_sentences(workspace: Workspace, target: Path, n_entities: int) -> None:
    """Write the first :data:`PER_ENTITY` sentences of each entity, in the columns of mentions.

    The corpus is streamed; what is kept is in memory once more while it is sorted.
    """
    kept_N = np.zeros(n_entities, np.int64)
    batches: list[pa.RecordBatch] = []
    for part in workspace.mentions():
        with part.open_input() as stream:
            batches += [_first_ones(batch, kept_N) for batch in pq.ParquetFile(stream).iter_batches()]
    table = pa.Table.from_batches(batches, MENTION_SCHEMA)
    order = np.argsort(table["entity_id"].to_numpy(), kind="stable")
    pq.write_table(table.take(order), target, row_group_size=GROUP_ROWS)


def _first_ones(batch: pa.RecordBatch, kept_N: np.ndarray) -> pa.RecordBatch:
    """Return the rows that are among the first of their entity, and count them in ``kept_N``."""
    short = np.flatnonzero(pc.less_equal(pc.utf8_length(batch["sentence"]), MAX_CHARACTERS))
    entity = batch["entity_id"].to_numpy()[short]
    order = np.argsort(entity, kind="stable")
    ordered = entity[order]
    rank = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    chosen = order[kept_N[ordered] + rank < PER_ENTITY]
    np.add.at(kept_N, entity[chosen], 1)
    return batch.take(short[np.sort(chosen)])
