"""Build a bundle's context features: the skip-grams around every mention, for SetExpan and CaSE."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq

from engine.corpus.schema import read_manifest
from engine.corpus.skipgrams import PartCounts, count_skipgrams
from engine.retrieval.skipgrams import SkipGrams
from engine.storage.workspace import Workspace
from jobs import console
from jobs.workers.executor import Executor


class SkipGramWorker:
    """A worker that counts the skip-grams of one mentions part, by its number.

    Args:
        workspace: its address.
    """

    def __init__(self, workspace: str) -> None:
        self._parts = Workspace.open(workspace).mentions()

    def __call__(self, part: int) -> PartCounts:
        """Return the counts of a part."""
        with self._parts[part].open_input() as stream:
            return count_skipgrams(pq.read_table(stream, columns=["entity_id", "sentence", "start", "end"]))


def skipgrams(workspace: Workspace, n_entities: int, executor: Executor) -> SkipGrams:
    """Return the skip-grams of a workspace's whole corpus.

    Every mention counts, also of sentences that were not drawn for the encoders' input.
    """
    rows = read_manifest(workspace).parts
    found: dict[int, PartCounts] = {}
    with console.meter("context features, mentions", sum(rows)) as meter:
        for part, counts in executor.map(SkipGramWorker, (workspace.root.uri,), list(range(len(rows)))):
            found[part] = counts
            meter.add(rows[part])
    nothing = PartCounts(np.empty(0, np.int32), np.empty(0, np.uint64), np.empty(0, np.int32))
    together = [nothing, *(found[part] for part in sorted(found))]
    whole = PartCounts(*(np.concatenate(column) for column in zip(*together, strict=True)))
    return SkipGrams.collect(*whole, n_entities)
