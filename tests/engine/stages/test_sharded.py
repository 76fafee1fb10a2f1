"""Stages over an index in parts: the same answers, and as few calls for many queries as for one."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.query import NewEntity, Query
from engine.stages.base import Pipeline
from engine.stages.compare import Compare
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.stages.rerank import ContrastRerank, SegmentRerank
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from tests.support.bundles import method_bundle
from tests.support.shards import provide_shards

N = 60
NEW = (NewEntity("Atlantis", ("Atlantis sank.", "Where is Atlantis now?")),)
QUERIES = [
    Query("plain", (1, 2), (3,), top_k=8),
    Query("no negative", (4,), top_k=8),
    Query("few", (5, 6), (7, 8), top_k=8, filters=(("class", ("rare",)),)),
    Query("many", (9,), (10,), top_k=8, filters=(("parity", ("odd",)),)),
    Query("new", (-1, 11), (12,), top_k=8, new=NEW),
]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"), n=N, d=8)


@pytest.mark.parametrize("parts", [1, 3, N + 5])
@pytest.mark.parametrize(
    ("pipeline", "calls"),
    [
        (Retrieve(k=20, view="joint", hubness=0.6) >> ContrastRerank(), 4),
        (Retrieve(k=20, view="joint") >> SegmentRerank(view="joint"), 4),
        (Retrieve(k=20, view="joint") >> Retrieve(k=10, view="joint") >> Explain(), 6),
        (Pipeline((Compare(rule="best", k=20),)), 3),
    ],
)
def test_an_index_in_parts_answers_as_the_whole(
    bundle: Bundle, pipeline: Pipeline, calls: int, parts: int
) -> None:
    pipeline = EncodeNewEntities() >> pipeline
    whole = pipeline.open(bundle)(QUERIES)
    cut = Bundle(bundle.manifest, bundle.folder)
    way = provide_shards(cut, "joint", parts)
    run = pipeline.open(cut)
    for found, expected in zip(run(QUERIES), whole, strict=True):
        assert found.degraded == expected.degraded == ()
        assert found.ranking.ids.tolist() == expected.ranking.ids.tolist() != []
        for column in ("scores", *expected.ranking.evidence):
            columns = [
                one.ranking.scores if column == "scores" else one.ranking.evidence[column]
                for one in (found, expected)
            ]
            np.testing.assert_array_equal(columns[0], columns[1])
    assert way.calls == calls + 1, "two a stage, and the new entity's neighbours"
    way.calls = 0
    run(QUERIES[:1])
    assert way.calls == calls


def test_a_remote_view_needs_no_file_to_be_read(bundle: Bundle, tmp_path: Path) -> None:
    elsewhere = Bundle(bundle.manifest, bundle.folder)
    provide_shards(elsewhere, "joint", 2)
    # But for the entities, as some may be gone.
    shutil.copy(bundle.path("entities.parquet"), tmp_path)
    gone = Bundle(bundle.manifest, tmp_path, elsewhere._read)
    (found,) = Pipeline((Retrieve(view="joint"),)).open(gone)(QUERIES[:1])
    assert len(found.ranking) == 8
