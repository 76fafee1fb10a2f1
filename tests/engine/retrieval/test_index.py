from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.retrieval import index as index_module
from engine.retrieval.index import VectorIndex, mean_of, unit, write_vectors

RANDOM = np.random.default_rng(0)


def slowly(
    index: VectorIndex,
    mean_D: np.ndarray,
    k: int,
    exclude: Collection[int],
    penalty: np.ndarray | None = None,
) -> list[int]:
    """The oracle: every entity scored one by one, sorted by score, then id."""
    scored = []
    for i, vector in enumerate(index.vectors_ND):
        if i not in exclude and vector.any():
            score = np.float32(np.einsum("d,d->", vector, mean_D))
            scored.append((-(score - penalty[i] if penalty is not None else score), i))
    return [i for _, i in sorted(scored)[:k]]


@pytest.mark.parametrize(("n", "k"), [(3, 1), (50, 200), (700, 7), (3000, 20), (3001, 3001)])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("penalised", [False, True])
def test_search_agrees_with_the_oracle(n: int, k: int, batch: int, penalised: bool) -> None:
    vectors = unit(RANDOM.normal(size=(n, 12)))
    vectors[n // 2] = 0
    hubness = RANDOM.random(n).astype(np.float32)
    index = VectorIndex(vectors, hubness)
    penalty = np.float32(0.6) * hubness if penalised else None
    means = np.stack([mean_of(index.vectors_of([0, 1, n - 1])) for _ in range(batch)])
    exclude = [[row % n, n - 1] for row in range(batch)]
    found = index.search(means, k, exclude, hubness=0.6 if penalised else 0)
    for (ids, scores, products), mean_D, left_out in zip(found, means, exclude, strict=True):
        assert ids.tolist() == slowly(index, mean_D, k, left_out, penalty)
        np.testing.assert_array_equal(scores, products if penalty is None else products - penalty[ids])
        assert (ids.dtype, scores.dtype) == (np.int32, np.float32)
        assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize("batch", [1, 5])
def test_ties_are_settled_by_id_however_many_there_are(batch: int) -> None:
    vectors = unit(np.repeat(RANDOM.normal(size=(4, 6)), 200, axis=0)[RANDOM.permutation(800)])
    index = VectorIndex(vectors)
    means = np.stack([mean_of(index.vectors_of([3]))] * batch)
    for ids, scores, _ in index.search(means, 50, [[3]] * batch):
        same = [i for i in range(800) if i != 3 and (vectors[i] == vectors[3]).all()]
        assert ids.tolist() == same[:50]
        assert len(set(scores.tolist())) == 1


@given(st.integers(2, 40), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_near_ties_are_exact(n: int, k: int, seed: int) -> None:
    """Scores that differ by less than float32 rounds away in the fast product."""
    random = np.random.default_rng(seed)
    base = random.normal(size=64)
    index = VectorIndex(unit(base + 1e-7 * random.normal(size=(n, 64))))
    means = np.stack([mean_of(index.vectors_of([0])), mean_of(index.vectors_of([0, 1]))])
    exclude = [[0], []]
    for (ids, *_), mean_D, out in zip(index.search(means, k, exclude), means, exclude, strict=True):
        assert ids.tolist() == slowly(index, mean_D, k, out)


def test_a_large_batch_looks_at_fewer_vectors_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorIndex(unit(RANDOM.normal(size=(30, 4))))
    means = np.stack([mean_of(index.vectors_of([i])) for i in range(10)])
    whole = index.search(means, 5, [[i] for i in range(10)])
    monkeypatch.setattr("engine.retrieval.fast_products.MAX_SCORES", 90)
    for found, other in zip(whole, index.search(means, 5, [[i] for i in range(10)]), strict=True):
        np.testing.assert_array_equal(found.ids, other.ids)
        np.testing.assert_array_equal(found.scores, other.scores)


@given(st.data(), st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_among_some_entities_the_best_of_these_come_back(data: Any, n: int, k: int, seed: int) -> None:
    """Few are scored one by one, many by products with ranges of rows: the answer is the same."""
    random = np.random.default_rng(seed)
    vectors = unit(random.normal(size=(n, 3)).round(1))
    vectors[random.random(n) < 0.2] = 0
    index = VectorIndex(vectors, random.random(n).astype(np.float32))
    means = random.normal(size=(4, 3))
    chosen = data.draw(st.lists(st.sets(st.integers(0, n - 1)), min_size=3, max_size=3))
    exclude = [data.draw(st.lists(st.integers(0, n - 1), max_size=3)) for _ in range(4)]
    among = [np.array(sorted(ids), np.int32) for ids in chosen] + [None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.retrieval.index.FEW", data.draw(st.sampled_from([0, 2, 1000])))
        scores = data.draw(st.sampled_from([1, 20, 130, 1000]))  # ranges of 1, 5 and 32 rows, and all rows
        patch.setattr("engine.retrieval.fast_products.MAX_SCORES", scores)
        answers = index.search(means, k, exclude, among, 0.5)
    for found, mean_D, ids, out in zip(answers, means, among, exclude, strict=True):
        others: Iterable[int] = [] if ids is None else np.setdiff1d(np.arange(n), ids)
        penalty = np.float32(0.5) * index._hubness_N
        assert found.ids.tolist() == slowly(index, mean_D, k, {*out, *others}, penalty)


def test_write_and_read(tmp_path: Path) -> None:
    index = VectorIndex(unit(RANDOM.normal(size=(5, 3))))
    index.write(tmp_path / "deep" / "a.faiss")
    read = VectorIndex.read(tmp_path / "deep" / "a.faiss")
    np.testing.assert_array_equal(read.vectors_ND, index.vectors_ND)
    assert len(read) == 5
    np.save(tmp_path / "deep" / "a.hubness.npy", np.arange(5, dtype=np.float32))
    (found,) = VectorIndex.read(tmp_path / "deep" / "a.faiss").search(np.ones((1, 3)), 5, [[]], hubness=100)
    assert found.ids.tolist() == [0, 1, 2, 3, 4], "the hubness beside the index is read"


def test_the_vectors_outlive_the_index_that_was_read(tmp_path: Path) -> None:
    expected = unit(RANDOM.normal(size=(300, 12)))
    VectorIndex(expected).write(tmp_path / "a.faiss")
    vectors = VectorIndex.read(tmp_path / "a.faiss").vectors_ND
    others = [VectorIndex.read(tmp_path / "a.faiss").vectors_ND * 0 for _ in range(20)]
    np.testing.assert_array_equal(vectors, expected)
    assert not np.any(others)


@pytest.mark.parametrize(("n", "d"), [(0, 3), (1, 5), (300, 7)])
def test_what_is_written_some_rows_at_a_time_is_what_faiss_writes(tmp_path: Path, n: int, d: int) -> None:
    vectors = RANDOM.normal(size=(n, d)).astype(np.float32)
    index = faiss.IndexFlatIP(d)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "plain"))
    write_vectors(tmp_path / "ours", [vectors[: n // 2], vectors[n // 2 :]], vectors.shape)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "plain").read_bytes()
    with pytest.raises(ValueError, match=r"ours: .* bytes of vectors"):
        write_vectors(tmp_path / "ours", [vectors], (n + 1, d))


def test_another_kind_of_index_is_refused(tmp_path: Path) -> None:
    faiss.write_index(faiss.IndexFlatL2(3), str(tmp_path / "l2.faiss"))
    faiss.write_index(faiss.IndexHNSWFlat(3, 4), str(tmp_path / "hnsw.faiss"))
    for name in ("l2.faiss", "hnsw.faiss"):
        with pytest.raises(BundleError, match=name):
            VectorIndex.read(tmp_path / name)


def test_rows_are_scaled_some_at_a_time_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = RANDOM.normal(size=(50, 9))
    whole = unit(vectors)
    monkeypatch.setattr(index_module, "UNIT_ROWS", 7)
    np.testing.assert_array_equal(unit(vectors), whole)
    np.testing.assert_array_equal(unit(vectors[3]), whole[3])
    np.testing.assert_array_equal(unit(vectors.reshape(5, 10, 9)), whole.reshape(5, 10, 9))


def test_unit_and_mean_leave_out_what_has_no_vector() -> None:
    vectors = unit(np.array([[3, 4], [0, 0], [0, 5]], float))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1], rtol=1e-6)
    index = VectorIndex(vectors)
    np.testing.assert_allclose(mean_of(index.vectors_of([0, 1, 2])), [0.3, 0.9], rtol=1e-6)
    assert mean_of(index.vectors_of([1])).tolist() == mean_of(index.vectors_of([])).tolist() == [0, 0]
