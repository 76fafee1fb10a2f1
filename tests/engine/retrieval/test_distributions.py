"""Sparse distributions against the plain dense computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.retrieval.distributions import EPSILON, Centre, ClassMean, SparseDistributions, Towards, truncate


def random_rows(seed: int, n: int, rows: int, peaked: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(n, peaked), rows)


def plain_divergence(p: np.ndarray, q: np.ndarray) -> float:
    """KL(p || q) of two dense distributions, term by term, both with the floor."""
    p, q = ((1 - EPSILON) * x.astype(np.float64) + EPSILON / len(x) for x in (p, q))
    return sum(float(a) * float(np.log(a / b)) for a, b in zip(p, q, strict=True))


SEEDS, SIZES = st.integers(0, 2**32 - 1), st.integers(2, 24)


def test_the_largest_are_kept_and_the_rest_is_even() -> None:
    dense = np.array([[0.1, 0.4, 0.2, 0.3], [2, 2, 4, 0], [0, 0, 0, 0]], np.float32)
    ids, values, rest = truncate(dense, 2)
    assert ids[0].tolist() == [1, 3]
    np.testing.assert_allclose(values[0], [0.4, 0.3], rtol=1e-6)
    assert rest[0] == pytest.approx((0.1 + 0.2) / 2)
    assert 2 in ids[1].tolist()
    assert sorted(values[1].tolist()) == [0.25, 0.5]  # of counts that sum to 8
    assert rest[1] == 0.125
    assert values[2].tolist() == [0, 0]
    assert rest[2] == 0
    assert (ids.dtype, values.dtype, rest.dtype) == (np.int32, np.float32, np.float32)


@settings(deadline=None)
@given(SEEDS, SIZES, st.integers(1, 30))
def test_rows_sum_to_one_and_what_is_lost_is_bounded(seed: int, n: int, m: int) -> None:
    dense = random_rows(seed, n, n)
    ids, values, rest = truncate(dense, m)
    kept = min(m, n)
    assert ids.shape == values.shape == (n, kept)
    np.testing.assert_allclose(values.sum(axis=1, dtype=np.float64) + rest * (n - kept), 1, atol=1e-6)
    sparse = SparseDistributions(ids, values, rest)
    for row, back in enumerate(sparse.dense(range(n))):
        lost = plain_divergence(dense[row], back)
        tail = float(rest[row]) * (n - kept)
        bound = tail * np.log(values[row].min() / rest[row]) if tail > 0 else 0
        assert -1e-6 <= lost <= bound + 1e-6


def test_nothing_is_lost_where_all_is_kept() -> None:
    dense = random_rows(1, 9, 9).astype(np.float32)
    sparse = SparseDistributions(*truncate(dense, 256))
    np.testing.assert_allclose(sparse.dense(range(9)), dense, rtol=1e-6)
    assert sparse.rest_N.tolist() == [0] * 9


@settings(deadline=None)
@given(SEEDS, SIZES, st.integers(1, 24), st.sampled_from(["class", "entity"]))
def test_divergences_are_those_of_the_dense_distributions(
    seed: int, n: int, m: int, towards: Towards
) -> None:
    dense = random_rows(seed, n, n)
    dense[seed % n] = 0  # an entity without a context
    sparse = SparseDistributions(*truncate(dense, m))
    rows, centre = sparse.dense(range(n)), random_rows(seed + 1, n, 1)[0]
    found = sparse.divergence(Centre.of(centre, towards))
    for entity in range(n):
        pair = (rows[entity], centre) if towards == "class" else (centre, rows[entity])
        expected = np.inf if entity == seed % n else plain_divergence(*pair)
        assert found[entity] == pytest.approx(expected, rel=1e-6, abs=1e-5)
    assert (found >= 0).all()
    some = np.array([n - 1, 0], np.int32)
    few = sparse.divergence_of(some, Centre.of(centre, towards))
    np.testing.assert_allclose(few, found[some], rtol=1e-5, atol=1e-6)
    assert sparse.divergence_of(some[:0], Centre.of(centre, towards)).shape == (0,)


@pytest.mark.parametrize("towards", ["class", "entity"])
def test_a_distribution_diverges_from_itself_by_nothing(towards: Towards) -> None:
    sparse = SparseDistributions(*truncate(random_rows(3, 40, 40), 5))
    for entity in range(40):
        itself = sparse.dense([entity])[0].astype(np.float64)
        found = sparse.divergence(Centre.of(itself, towards))
        assert found[entity] == pytest.approx(0, abs=1e-6)
        assert (np.delete(found, entity) > 1e-3).all()


def test_a_pass_over_many_blocks_is_a_pass() -> None:
    n = 1300
    sparse = SparseDistributions(*truncate(random_rows(5, n, n, 0.05), 16))
    centre = sparse.dense([1, 2]).mean(axis=0, dtype=np.float64)
    found = sparse.divergence(Centre.of(centre))
    few = sparse.divergence_of(np.arange(n, dtype=np.int32), Centre.of(centre))
    np.testing.assert_allclose(few, found, rtol=1e-6)
    for entity in (0, 511, 512, 1299):
        expected = plain_divergence(sparse.dense([entity])[0], centre)
        assert found[entity] == pytest.approx(expected, rel=1e-5)


@settings(deadline=None)
@given(SEEDS, SIZES, st.integers(1, 24), st.lists(st.floats(0.1, 1), min_size=1, max_size=5))
def test_a_mean_that_grows_is_the_mean_of_all(seed: int, n: int, m: int, weights: list[float]) -> None:
    sparse = SparseDistributions(*truncate(random_rows(seed, n, n), m))
    mean, entities = ClassMean(n), np.random.default_rng(seed).integers(n, size=len(weights))
    every = np.arange(n, dtype=np.int32)
    for count, (entity, weight) in enumerate(zip(entities, weights, strict=True), start=1):
        mean.add(sparse, int(entity), weight)
        rows = sparse.dense(entities[:count]).astype(np.float64)
        expected = np.average(rows, axis=0, weights=weights[:count])
        for towards in ("class", "entity"):
            found, plain = mean.centre(towards), Centre.of(expected, towards)
            np.testing.assert_allclose(found.values[found.place_N], plain.values[1:], rtol=1e-6)
            assert found.whole == pytest.approx(plain.whole, rel=1e-6)
            divergences = sparse.divergence(found), sparse.divergence_of(every, plain)
            np.testing.assert_allclose(*divergences, rtol=1e-5, atol=1e-6)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sparse = SparseDistributions(*truncate(random_rows(7, 12, 12), 4))
    sparse.write(tmp_path / "x")
    again = SparseDistributions.read(tmp_path / "x")
    assert len(again) == 12
    np.testing.assert_array_equal(again.dense(range(12)), sparse.dense(range(12)))


def test_files_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    SparseDistributions(*truncate(random_rows(7, 12, 12), 4)).write(tmp_path / "x")
    np.save(tmp_path / "x" / "rest.npy", np.zeros(11, np.float32))
    with pytest.raises(BundleError, match=r"rest float32 \(11,\)"):
        SparseDistributions.read(tmp_path / "x")
