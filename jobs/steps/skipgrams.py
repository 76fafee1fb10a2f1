"""Build a bundle's context features: the skip-grams around every mention, for SetExpan and CaSE."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow.parquet as pq

from engine.corpus.schema import read_manifest
from engine.corpus.skipgrams import PartCounts, count_skipgrams
from engine.retrieval.skipgrams import WINDOWS, SkipGrams
from engine.storage.workspace import Workspace
from engine.text.hashes import of_range
from jobs import console
from jobs.workers.disk_use import check_disk
from jobs.workers.executor import Executor

COUNTS = np.dtype([("hash", "<u8"), ("entity", "<i4"), ("count", "<i4")])
"""How often an entity has a skip-gram, as it is put in a file."""
RANGE = 1 << 20
"""Counts that a range of hashes has, about, at most."""
MOST_BITS = 8
"""Bits of a hash that say its range, at most: as many files are open as there are ranges."""


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


def skipgrams(workspace: Workspace, n_entities: int, executor: Executor, folder: Path) -> None:
    """Write the skip-grams of a workspace's whole corpus (:class:`SkipGrams`) into a folder.

    Every mention counts, also of sentences that were not drawn for the encoders' input.

    The counts of all parts are put in files by the begin of their hashes and added up one file after the
    other, so that memory does not grow with the corpus: of 10 million sentences 60 million counts at most
    are 1 GB on disk, in 64 files, and one of these takes about 150 MB while it is added up.
    """
    rows = read_manifest(workspace).parts
    # The counts, those of each range added up, and all ranges together.
    check_disk(workspace.bundles, len(WINDOWS) * sum(rows) * (COUNTS.itemsize + 8 + 8))
    scratch = workspace.bundles.staging()
    bits = min((len(WINDOWS) * sum(rows) // RANGE).bit_length(), MOST_BITS)
    try:
        with ExitStack() as opened, console.meter("context features, mentions", sum(rows)) as meter:
            files = [opened.enter_context((scratch / f"{one}").open("wb")) for one in range(1 << bits)]
            tasks = list(range(len(rows)))
            for part, counts in executor.map(SkipGramWorker, (workspace.root.uri,), tasks):
                _append(files, counts, bits)
                meter.add(rows[part])
        ranges = [scratch / f"range-{one}" for one in range(1 << bits)]
        for one, target in enumerate(ranges):
            found = np.fromfile(scratch / f"{one}", COUNTS)
            SkipGrams.collect(found["entity"], found["hash"], found["count"], n_entities).write(target)
        SkipGrams.write_ranges(folder, n_entities, lambda: map(SkipGrams.read, ranges))
    finally:
        shutil.rmtree(scratch)


def _append(files: Sequence[IO[bytes]], counts: PartCounts, bits: int) -> None:
    """Append the counts of a part to the files of the ranges that their hashes are in."""
    rows = np.empty(len(counts.hashes), COUNTS)
    rows["hash"], rows["entity"], rows["count"] = counts.hashes, counts.entities, counts.counts
    rows = rows[np.argsort(rows["hash"], kind="stable")]
    for place, file in enumerate(files):
        file.write(rows[of_range(rows["hash"], place, bits)].tobytes())
