"""The search by codes against the exact one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.retrieval import code_building, codes
from engine.retrieval.code_building import (
    fill_codes,
    kind_for,
    make_codes,
    seed_means,
    train_codes,
    tune_codes,
    write_codes,
)
from engine.retrieval.codes import EXACT, PQ, SQ8, Codes, CodeSettings, SearchEffort
from engine.retrieval.index import SearchResult, VectorIndex, mean_of, unit
from engine.retrieval.opening import read_index
from engine.retrieval.shards import IndexShard, ShardedIndex
from tests.support.shards import Here

N, D = 1500, 24


def clustered(n: int = N, d: int = D, seed: int = 0) -> np.ndarray:
    """Return unit vectors around 40 centres; some rows are zeros, some entities have the same vector."""
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(40, d))[random.integers(0, 40, n)] + 0.6 * random.normal(size=(n, d)))
    vectors[random.random(n) < 0.1] = 0
    vectors[-20:] = vectors[0]
    return vectors


VECTORS = clustered()
HUBNESS = np.random.default_rng(1).random(N).astype(np.float32)


@pytest.fixture(scope="module", params=[SQ8, PQ])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a view, its hubness and its codes."""
    path = tmp_path_factory.mktemp(request.param) / "a.faiss"
    VectorIndex(VECTORS).write(path)
    np.save(path.with_suffix(".hubness.npy"), HUBNESS)
    write_codes(make_codes(VECTORS, HUBNESS, request.param), path.with_suffix(".codes"))
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let codes be used however many candidates there are."""
    monkeypatch.setattr(codes, "WIDE", 0)


def read(path: Path, probes: int, ratio: int, parts: int = 1) -> ShardedIndex:
    """Return the index with another number of lists and of candidates."""
    shards = [IndexShard.read(path, part, parts) for part in range(parts)]
    rows = [
        shard.rows()._replace(codes=CodeSettings(shard.codes.settings.lists, probes, ratio))
        for shard in shards
        if shard.codes is not None
    ]
    return ShardedIndex(Here(shards), rows)


def same(found: list[SearchResult], expected: list[SearchResult]) -> None:
    for one, other in zip(found, expected, strict=True):
        for column, wanted in zip(one, other, strict=True):
            np.testing.assert_array_equal(column, wanted)
            assert column.dtype == wanted.dtype


@settings(max_examples=40)
@given(st.data(), st.integers(1, 60), st.sampled_from([0.0, 0.6]), st.integers(1, 3))
def test_with_all_lists_and_all_candidates_the_answer_is_the_exact_one(
    folder: Path, data: Any, k: int, weight: float, parts: int
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    exact = VectorIndex(VECTORS, HUBNESS)
    index = read(folder, probes=10**6, ratio=N, parts=parts)
    means = np.stack([mean_of(VECTORS[random.choice(N, 3)]) for _ in range(3)])
    exclude = [random.choice(N, 4).tolist() for _ in range(3)]
    among = [
        None,
        np.sort(random.choice(N, 400, replace=False)).astype(np.int32),
        np.arange(5, dtype=np.int32),
    ]
    same(index.search(means, k, exclude, among, weight), exact.search(means, k, exclude, among, weight))


@settings(max_examples=40)
@given(st.data(), st.integers(1, 40), st.integers(1, 30), st.sampled_from([0.0, 0.6]))
def test_parts_find_what_the_whole_finds_and_batches_change_nothing(
    folder: Path, data: Any, k: int, probes: int, weight: float
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    whole, parts = read(folder, probes, 3), read(folder, probes, 3, parts=3)
    # No two of these have the same code: at the edge of the candidates such are told apart by chance.
    apart = np.flatnonzero(VECTORS.any(axis=1))[:-21].astype(np.int32)
    means = np.stack([mean_of(VECTORS[random.choice(apart, 3)]) for _ in range(3)])
    exclude = [random.choice(N, 4).tolist() for _ in range(3)]
    among = [apart, np.sort(random.choice(apart, 400, replace=False)), apart]
    found = whole.search(means, k, exclude, among, weight)
    same(parts.search(means, k, exclude, among, weight), found)
    for query in range(3):
        alone = slice(query, query + 1)
        same(whole.search(means[alone], k, exclude[alone], among[alone], weight), found[alone])


@settings(max_examples=60)
@given(st.data(), st.integers(1, 60), st.integers(1, 4), st.sampled_from([0.0, 2.0]))
def test_what_is_found_is_scored_exactly_ordered_allowed_and_enough(
    folder: Path, data: Any, k: int, probes: int, weight: float
) -> None:
    """Whatever codes miss: scores are exact, and there are as many as the exact search finds."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    means = random.normal(size=(2, D))
    exclude = [random.choice(N, data.draw(st.integers(0, 50))).tolist() for _ in range(2)]
    among = [None, np.sort(random.choice(N, data.draw(st.integers(1, N)), replace=False)).astype(np.int32)]
    found = read(folder, probes, 1).search(means, k, exclude, among, weight)
    exact = VectorIndex(VECTORS, HUBNESS)
    expected = exact.search(means, N, exclude, among, weight)
    for one, whole in zip(found, expected, strict=True):
        assert len(one.ids) == min(k, len(whole.ids))
        place = {entity: i for i, entity in enumerate(whole.ids.tolist())}
        places = [place[entity] for entity in one.ids.tolist()]
        assert places == sorted(places), "the order of the exact search"
        same([one], [SearchResult(whole.ids[places], whole.scores[places], whole.products[places])])


def test_hubness_is_taken_off_before_candidates_are_chosen(folder: Path) -> None:
    """A large weight turns the order around: candidates by products alone would miss nearly all."""
    index, exact = read(folder, 10**6, 10), VectorIndex(VECTORS, HUBNESS)
    means = np.stack([mean_of(VECTORS[[i]]) for i in (1, 2, 3)])
    truth, by_product = (exact.search(means, 20, [[]] * 3, hubness=w) for w in (2.0, 0.0))
    found = index.search(means, 20, [[]] * 3, hubness=2.0)
    for one, wanted, other in zip(found, truth, by_product, strict=True):
        assert len(np.intersect1d(one.ids, wanted.ids)) >= 18
        assert len(np.intersect1d(other.ids, wanted.ids)) < 10


def test_exact_on_request_and_for_many_candidates(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exact, index = VectorIndex(VECTORS, HUBNESS), read(folder, 1, 1)
    means = np.random.default_rng(3).normal(size=(2, D))
    expected = exact.search(means, 50, [[], [1]], hubness=0.6)
    same(index.search(means, 50, [[], [1]], hubness=0.6, exact=True), expected)
    monkeypatch.setattr(codes, "WIDE", 8)
    monkeypatch.setattr("engine.retrieval.fast_products.ROWS", 100)  # a mapped matrix is read in pieces
    same(index.search(means, N // 4, [[], []]), exact.search(means, N // 4, [[], []]))


def test_the_effort_grows_with_what_is_wanted_and_with_what_is_ruled_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    of = CodeSettings(lists=100, probes=10, ratio=2)
    monkeypatch.setattr(codes, "WIDE", 8)
    assert of.effort(10**6, 200, None) == SearchEffort(10, 400)
    assert of.effort(10**6, 20, None) == SearchEffort(10, 40)
    assert of.effort(10**6, 600, None) == SearchEffort(30, 1200)
    assert of.effort(10**6, 200, 250_000) == SearchEffort(40, 400)
    assert of.effort(10**6, 200, 31_000) is None, "few are scored one by one"
    assert of.effort(10**4, 700, None) is None, "so many are read in the file's order"
    assert of.wider(SearchEffort(30, 7)) == SearchEffort(100, 7)
    assert of.wider(SearchEffort(100, 7)) is None


def test_codes_are_mapped_and_parts_hold_their_own(folder: Path) -> None:
    index = read_index(folder)
    assert isinstance(index, ShardedIndex)
    whole = IndexShard.read(folder, 0, 1)
    assert not whole.index.vectors_ND.flags.owndata
    assert whole.codes is not None
    assert isinstance(faiss.downcast_InvertedLists(whole.codes.index.invlists), faiss.OnDiskInvertedLists)
    assert whole.codes.ids().tolist() == np.flatnonzero(VECTORS.any(axis=1)).tolist()
    parts = [IndexShard.read(folder, part, 3) for part in range(3)]
    own = [part.codes.ids() for part in parts if part.codes is not None]
    np.testing.assert_array_equal(np.concatenate(own), whole.codes.ids())
    assert sum(part.codes.bytes for part in parts if part.codes) == whole.codes.bytes


@pytest.mark.parametrize("kind", [SQ8, PQ])
def test_recall_is_measured_against_the_exact_search(kind: str) -> None:
    made, index = make_codes(VECTORS, HUBNESS, kind), VectorIndex(VECTORS, HUBNESS)
    report = tune_codes(made, index, has_hubness=True)
    assert report.kind == kind
    assert report.queries == code_building.QUERIES // 2
    assert made.settings.probes == report.probes
    queries = seed_means(index, made.ids(), code_building.QUERIES)[1::2]
    search = ShardedIndex.of(IndexShard(0, index, made)).search
    for weight, figure in ((0.0, report.recall), (code_building.HUBNESS, report.recall_hubness)):
        found = search(queries, codes.K, [[]] * len(queries), hubness=weight)
        truth = index.search(queries, codes.K, [[]] * len(queries), hubness=weight)
        shares = [len(set(a.ids) & set(b.ids)) / len(b.ids) for a, b in zip(found, truth, strict=True)]
        assert figure == pytest.approx(np.mean(shares))
    assert report.least >= 0.98, "with 34 lists of 40 clusters"
    made.set_probes(1)
    (one,) = (tuple(r.ids) for r in search(queries[:1], 200, [[]]))
    assert len(one) == 200, "one list holds fewer: more are read"


def test_entities_are_counted_as_they_get_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code_building, "BLOCK", 700)
    told: list[int] = []
    made = train_codes(VECTORS, HUBNESS, SQ8)
    assert not len(made.ids())
    fill_codes(made, VECTORS, HUBNESS, told.append)
    assert len(told) > 1
    assert max(told) <= 700
    assert sum(told) == len(made.ids())


def test_no_more_lists_are_read_than_the_recall_needs() -> None:
    made, index = make_codes(VECTORS, HUBNESS, SQ8), VectorIndex(VECTORS, HUBNESS)
    report = tune_codes(made, index, has_hubness=True)
    assert 1 < report.probes < report.lists
    queries = seed_means(index, made.ids(), code_building.QUERIES)[::2]
    recalls = []
    for probes in (report.probes - 1, report.probes):
        made.set_probes(probes)
        search = ShardedIndex.of(IndexShard(0, index, made)).search
        for weight in (0.0, code_building.HUBNESS):
            found = search(queries, codes.K, [[]] * len(queries), hubness=weight)
            truth = index.search(queries, codes.K, [[]] * len(queries), hubness=weight)
            shares = [len(set(a.ids) & set(b.ids)) / len(b.ids) for a, b in zip(found, truth, strict=True)]
            recalls.append(np.mean(shares))
    assert min(recalls[:2]) < code_building.AIM <= min(recalls[2:])


@pytest.mark.parametrize(
    ("asked", "entities", "memory", "kind"),
    [
        ("auto", 300_000, 1 << 34, EXACT),
        ("auto", 1_000_000, 1 << 34, SQ8),
        ("auto", 10_000_000, 1 << 34, PQ),
        (SQ8, 10_000_000, 1 << 34, SQ8),
        (PQ, 20_000, 1 << 34, PQ),
        (EXACT, 10_000_000, 1 << 34, EXACT),
        (PQ, 9_999, 1 << 34, EXACT),
    ],
)
def test_the_kind_is_chosen_by_size_and_memory(asked: str, entities: int, memory: int, kind: str) -> None:
    assert kind_for(asked, entities, 768, memory) == kind


def test_other_files_are_refused(tmp_path: Path) -> None:
    flat = faiss.IndexIVFFlat(faiss.IndexFlatIP(4), 4, 1, faiss.METRIC_INNER_PRODUCT)
    flat.train(np.eye(4, dtype=np.float32))
    faiss.write_index(flat, str(tmp_path / "a.codes"))
    with pytest.raises(BundleError, match=r"a\.codes.*build the index again"):
        Codes.read(tmp_path / "a.codes")
