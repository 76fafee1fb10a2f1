"""Methods over views with codes: with every list and every candidate, the answers of the exact search."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from engine.methods import METHODS
from engine.query import Expansion, NewEntity, Query
from engine.retrieval import codes
from engine.retrieval.shards import ShardedIndex
from engine.stages.base import Pipeline
from engine.stages.compare import Compare
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.stages.rerank import ContrastRerank
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from tests.support.bundles import add_codes, method_bundle
from tests.support.shards import provide_shards

N = 400
NEW = (NewEntity("Atlantis", ("Atlantis sank.", "Where is Atlantis now?")),)
QUERIES = [
    Query("plain", (1, 2), (3,), top_k=8),
    Query("no negative", (4,), top_k=300),
    Query("few", (5, 6), (7, 8), top_k=8, filters=(("class", ("rare",)),)),
    Query("many", (9,), (10,), top_k=8, filters=(("parity", ("odd",)),)),
    Query("options", (9, 11), (10,), top_k=8, options=(("Retrieve.k", 50), ("Retrieve.hubness", 0.1))),
    Query("new", (-1, 11), (12,), top_k=8, new=NEW),
]

RETRIEVING = [
    name
    for name, pipeline in METHODS.items()
    if any(isinstance(stage, Retrieve) for stage in pipeline.stages)
    and not any(word in name for word in ("chat", "genexpan"))  # an endpoint, and minutes in sum
]


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle of which two entities have been removed."""
    return method_bundle(tmp_path_factory.mktemp("w"), n=N, d=8, removed=(20, 21))


@pytest.fixture
def coded(exact: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """Return the same with codes beside each view; all lists are read, and every entity is a candidate."""
    monkeypatch.setattr(codes, "WIDE", 0)
    monkeypatch.setattr(codes, "RATIO", {codes.SQ8: N})
    folder = Path(shutil.copytree(exact.folder, tmp_path / "copy"))
    found = Bundle(exact.manifest, folder)
    add_codes(found, codes.SQ8, 10**6)
    return found


def same(found: list[Expansion], expected: list[Expansion]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.degraded == other.degraded
        assert one.ranking.ids.tolist() == other.ranking.ids.tolist() != []
        np.testing.assert_array_equal(one.ranking.scores, other.ranking.scores)
        for column, values in other.ranking.evidence.items():
            np.testing.assert_array_equal(one.ranking.evidence[column], values)


@pytest.mark.parametrize("parts", [0, 3])
@pytest.mark.parametrize(
    "pipeline",
    [
        Retrieve(k=20, view="joint", hubness=0.6) >> ContrastRerank(view="joint"),
        Pipeline((Compare(rule="sum", k=20),)),
        Retrieve(k=20, view="joint", seed_view="mask") >> Retrieve(k=10, view="joint") >> Explain(),
    ],
)
def test_all_codes_give_the_answers_of_all_vectors(
    exact: Bundle, coded: Bundle, pipeline: Pipeline, parts: int
) -> None:
    pipeline = EncodeNewEntities() >> pipeline
    expected = pipeline.open(exact)(QUERIES, strict=True)
    if parts:
        provide_shards(coded, "joint", parts)
    same(pipeline.open(coded)(QUERIES, strict=True), expected)


@pytest.mark.parametrize("name", RETRIEVING)
def test_every_method_that_retrieves_answers_over_codes(name: str, exact: Bundle, coded: Bundle) -> None:
    queries = [Query("a", (1, 2), (3,), top_k=8), Query("b", (4, 5), (6,), filters=(("parity", ("odd",)),))]
    same(METHODS[name].open(coded)(queries, strict=True), METHODS[name].open(exact)(queries, strict=True))


def test_few_lists_miss_some_and_exact_on_request_misses_none(
    exact: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codes, "WIDE", 0)
    found = Bundle(exact.manifest, Path(shutil.copytree(exact.folder, tmp_path / "copy")))
    add_codes(found, codes.SQ8, 1)
    asked, stage = QUERIES[:2], Retrieve(k=50, view="joint", hubness=0.6)
    expected = Pipeline((stage,)).open(exact)(asked)
    some = Pipeline((stage,)).open(found)(asked)
    assert some[1].ranking.ids.tolist() != expected[1].ranking.ids.tolist()
    assert len(some[1].ranking) == 300, "as many as were wanted: more lists are read until there are"
    same(Pipeline((stage.model_copy(update={"exact": True}),)).open(found)(asked), expected)
    assert isinstance(found.once("index/joint.faiss", lambda path: None), ShardedIndex)
