"""Select the sentences that a bundle shows of its entities: the first few of each, sorted by entity."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from engine.corpus.drawing import ranks_within
from engine.corpus.schema import MENTION_SCHEMA
from engine.storage.workspace import Workspace

PER_ENTITY = 8
"""Contexts kept of an entity."""

MAX_CHARACTERS = 500
"""Longer sentences are not shown, so they are not kept."""

GROUP_ROWS = 250
"""Rows of a row group: what is read to show the sentences of one entity. 1,000 take twice the time for 50."""

WRITTEN_ROWS = 100 * GROUP_ROWS
"""Rows that are sorted into a copy at a time, whole groups."""


def write_sentences(
    workspace: Workspace, target: Path, n_entities: int, refused: Collection[str] = ()
) -> None:
    """Write the first :data:`PER_ENTITY` contexts of each entity, in the columns of mentions.

    Sentences and images without a sentence take turns, so that neither pushes the other out. The corpus is
    streamed; what is kept is in memory, and for a moment twice.

    Args:
        workspace: with a corpus.
        target: the file.
        n_entities: of the vocabulary.
        refused: addresses of images that could not be used, and so are not shown.
    """
    unusable = pa.array(refused, pa.string())
    kept_G = np.zeros(2 * n_entities, np.int64)
    batches: list[pa.RecordBatch] = []
    for part in workspace.mentions():
        with part.open_input() as stream:
            for batch in pq.ParquetFile(stream).iter_batches():
                batches.append(_first_ones(_without(batch, unusable), kept_G))
    table = pa.Table.from_batches(batches, MENTION_SCHEMA).combine_chunks()
    batches.clear()
    group = _groups(table)
    rank = ranks_within(group)
    order = np.lexsort((group, rank, group // 2))
    place = ranks_within(group[order] // 2)
    kept = order[place < PER_ENTITY]
    with pq.ParquetWriter(target, MENTION_SCHEMA) as writer:
        for start in range(0, len(kept), WRITTEN_ROWS):
            writer.write_table(table.take(kept[start : start + WRITTEN_ROWS]), row_group_size=GROUP_ROWS)


def _without(batch: pa.RecordBatch, unusable: pa.Array) -> pa.RecordBatch:
    """Return the rows without unusable images; a row that had nothing else is left out."""
    if not len(unusable):
        return batch
    image = pc.if_else(pc.is_in(batch["image"], value_set=unusable), None, batch["image"])
    batch = batch.set_column(batch.schema.get_field_index("image"), batch.schema.field("image"), image)
    return batch.filter(pc.or_(pc.greater(batch["end"], 0), pc.is_valid(image)))


def _first_ones(batch: pa.RecordBatch, kept_G: np.ndarray) -> pa.RecordBatch:
    """Return the rows that are among the first of their group, and count them in ``kept_G``."""
    short = np.flatnonzero(pc.less_equal(pc.utf8_length(batch["sentence"]), MAX_CHARACTERS))
    group = _groups(batch)[short]
    rank = ranks_within(group)
    chosen = np.flatnonzero(kept_G[group] + rank < PER_ENTITY)
    np.add.at(kept_G, group[chosen], 1)
    return batch.take(short[chosen])


def _groups(mentions: pa.Table | pa.RecordBatch) -> np.ndarray:
    """Return, int64 [rows], twice the entity of each mention, and one more where it has no sentence."""
    return 2 * mentions["entity_id"].to_numpy().astype(np.int64) + (mentions["end"].to_numpy() == 0)
