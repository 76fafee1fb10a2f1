"""The skip-grams of a corpus, added up range by range: those of all counts together."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from engine.corpus.skipgrams import count_skipgrams
from engine.errors import StorageError
from engine.retrieval.skipgrams import SkipGrams
from engine.storage.workspace import Workspace
from jobs.steps import skipgrams as step
from jobs.workers import disk_use
from jobs.workers.executor import LocalExecutor
from tests.jobs.conftest import METALS, import_metals


@pytest.mark.parametrize("counts_of_a_range", [8, 1 << 20])
def test_ranges_of_hashes_are_added_up_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts_of_a_range: int
) -> None:
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    workspace = Workspace.open(tmp_path / "w")
    monkeypatch.setattr(step, "RANGE", counts_of_a_range)
    there = {*Path(workspace.root.path).iterdir()}
    step.skipgrams(workspace, len(METALS), LocalExecutor(), tmp_path / "x")
    found = SkipGrams.read(tmp_path / "x")
    tables = [pq.read_table(part.path) for part in workspace.mentions()]
    counted = [np.concatenate(column) for column in zip(*map(count_skipgrams, tables), strict=True)]
    plain = SkipGrams.collect(counted[0], counted[1], counted[2], len(METALS))
    assert plain.n_features > 5
    for name in ("starts_N1", "features_P", "counts_P"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    assert {*Path(workspace.root.path).iterdir()} == there, "nothing of what is in between stays"


def test_what_the_disk_has_no_room_for_is_refused_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_metals(str(tmp_path / "w"), tmp_path / "raw")
    workspace = Workspace.open(tmp_path / "w")
    there = {*Path(workspace.root.path).iterdir()}
    monkeypatch.setattr(disk_use, "_free_bytes", lambda folder: 60 * 6 * 32 - 1)
    with pytest.raises(StorageError, match=r"this will need about 11.5 kB on disk, and 11.5 kB are free"):
        step.skipgrams(workspace, len(METALS), LocalExecutor(), tmp_path / "x")
    assert {*Path(workspace.root.path).iterdir()} == there
