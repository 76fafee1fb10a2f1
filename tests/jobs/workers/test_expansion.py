"""The last actor of a batch: what it wrote is not made again where only Ray's knowledge of it was lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engine.methods import METHODS
from engine.queries.results import ExpansionFolder
from engine.query import Expansion, Query
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs.workers.chain import Chain, Row
from jobs.workers.expansion import LastStageActor
from jobs.workers.part_rows import pack
from jobs.workers.stage_run import BatchExpansion, BundleRef, StageRun
from tests.support.bundles import publish_vectors


def test_a_part_that_is_there_is_counted_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(1).normal(size=(20, 4))
    names = [f"entity {i}" for i in range(20)]
    bundle = publish_vectors(Workspace.open(tmp_path / "w"), names, {"mask": vectors})
    chain = Chain.of({"retexpan": METHODS["retexpan"]})
    job = BatchExpansion(chain, BundleRef(str(tmp_path / "w"), bundle.id), str(tmp_path / "out"), 4)
    rows = [Row(Expansion(Query(f"q{i}", (i,), top_k=3)), "retexpan") for i in range(5)]
    actor = LastStageActor(job, chain.pools[0], gpu=False)
    counts = actor(pack("00000", rows)).to_pylist()
    file = ExpansionFolder(Store.open(job.output)).parts.file("00000").local_copy(tmp_path)
    written = file.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(StageRun, "__call__", lambda *_: pytest.fail("its stages ran again"))
        assert actor(pack("00000", rows)).to_pylist() == counts
    file.write_bytes(written[:-9])
    assert actor(pack("00000", rows)).to_pylist() == counts, "one that is cut is made again"
    assert file.read_bytes() == written
