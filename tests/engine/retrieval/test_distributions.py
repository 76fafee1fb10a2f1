"""Sparse distributions and log-distributions against the plain dense ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.retrieval.distributions import EntityDistributions, SparseRows, standardised


def random_rows(seed: int, n: int, rows: int, peaked: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.full(n, peaked), rows)


SEEDS, SIZES = st.integers(0, 2**32 - 1), st.integers(2, 24)


def test_the_largest_are_kept_and_one_value_stands_for_the_others() -> None:
    dense = np.array([[0.1, 0.4, 0.2, 0.3], [-2, 4, -2, -4]], np.float32)
    rows = SparseRows.of(dense, 2)
    assert rows.ids_BM[0].tolist() == [1, 3]
    np.testing.assert_allclose(rows.values_BM[0], [0.4, 0.3], rtol=1e-6)
    assert rows.rest_B.tolist() == pytest.approx([0.15, -3])
    assert 1 in rows.ids_BM[1]
    assert rows.at(np.array([0]), np.array([3, 0, 1]), 4).tolist() == [pytest.approx([0.3, 0.15, 0.4])]
    assert (rows.ids_BM.dtype, rows.values_BM.dtype, rows.rest_B.dtype) == (np.int32, np.float32, np.float32)


@given(SEEDS, SIZES, st.integers(1, 30))
def test_rows_are_read_and_added_as_their_dense_form_is(seed: int, n: int, m: int) -> None:
    rows = SparseRows.of(random_rows(seed, n, 4), m)
    dense = rows.dense(range(4), n)
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=1e-5)
    columns = np.random.default_rng(seed).permutation(n).astype(np.int32)
    some = np.array([2, 0])
    np.testing.assert_array_equal(rows.at(some, columns[: n - 1], n), dense[some][:, columns[: n - 1]])
    for row in range(4):
        sums = np.zeros(n)
        rows.add_to(sums, row)
        np.testing.assert_allclose(sums + rows.rest_B[row], dense[row], atol=1e-7)
    if m >= n:
        np.testing.assert_array_equal(dense, random_rows(seed, n, 4).astype(np.float32))


def test_what_is_kept_is_standardised_over_the_whole_row() -> None:
    logs = np.random.default_rng(2).normal(-5, 3, (6, 40))
    found = EntityDistributions.of(np.exp(logs), logs, 7)
    whole = (logs - logs.mean(axis=1, keepdims=True)) / logs.std(axis=1, keepdims=True)
    for row in range(6):
        own = found.logs.ids_BM[row]
        assert set(own) == set(np.argsort(-logs[row])[:7])
        np.testing.assert_allclose(found.logs.values_BM[row], whole[row, own], rtol=1e-6)
        others = np.delete(whole[row], own)
        assert found.logs.rest_B[row] == pytest.approx(others.mean(), rel=1e-5)
    shares = np.exp(logs) / np.exp(logs).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found.mean_log_B, np.log(shares).mean(axis=1))
    np.testing.assert_allclose(found.probabilities.dense(range(6), 40).sum(axis=1), 1, atol=1e-5)


def test_an_even_row_says_nothing_and_no_context_is_absent() -> None:
    means = np.array([[0.25] * 4, [0] * 4, [1, 0, 0, 0]])
    found = EntityDistributions.of(means, np.array([[-1.4] * 4, [0] * 4, [0, -9, -9, -9]]))
    assert found.present_B.tolist() == [True, False, True]
    assert not found.logs.values_BM[:2].any()
    assert np.isfinite(found.mean_log_B).all()
    assert not standardised(np.full((1, 7), -1.1)).any()


def test_they_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = [EntityDistributions.of(rows, np.log(rows), 4) for rows in np.split(random_rows(7, 12, 12, 1), 2)]
    found = EntityDistributions.concatenate(parts)
    found.write(tmp_path / "x")
    again = EntityDistributions.read(tmp_path / "x")
    assert len(again) == 12
    for name in ("probabilities", "logs"):
        for column in ("ids_BM", "values_BM", "rest_B"):
            np.testing.assert_array_equal(
                getattr(getattr(again, name), column), getattr(getattr(found, name), column)
            )
    np.testing.assert_array_equal(again.mean_log_B, found.mean_log_B)


def test_parts_are_put_in_their_places_in_any_order(tmp_path: Path) -> None:
    rows = random_rows(7, 12, 12, 1)
    parts = [EntityDistributions.of(some, np.log(some), 4) for some in np.split(rows, [5, 9])]
    EntityDistributions.concatenate(parts).write(tmp_path / "plain")
    EntityDistributions.write_parts(tmp_path / "x", 12, [(9, parts[2]), (0, parts[0]), (5, parts[1])], 4)
    for name in ("ids", "values", "rest", "log/ids", "log/values", "log/rest", "log/mean"):
        plain, found = (np.load(tmp_path / folder / f"{name}.npy") for folder in ("plain", "x"))
        assert plain.dtype == found.dtype
        np.testing.assert_array_equal(found, plain)


def test_files_that_do_not_fit_are_named(tmp_path: Path) -> None:
    rows = random_rows(7, 12, 12)
    EntityDistributions.of(rows, np.log(rows), 4).write(tmp_path / "x")
    np.save(tmp_path / "x" / "log" / "mean.npy", np.zeros(3))
    with pytest.raises(BundleError, match="x: 12 distributions, 12 log-distributions and 3 means"):
        EntityDistributions.read(tmp_path / "x")
    np.save(tmp_path / "x" / "values.npy", np.zeros((12, 3), np.float32))
    with pytest.raises(BundleError, match="x: ids int32 \\(12, 4\\), values float32 \\(12, 3\\)"):
        EntityDistributions.read(tmp_path / "x")


def test_distributions_of_an_earlier_version_say_what_makes_the_rest(tmp_path: Path) -> None:
    SparseRows.of(random_rows(7, 12, 12), 4).write(tmp_path / "x")
    with pytest.raises(BundleError, match=r"without log-distributions.*run `seedset build-index` again"):
        EntityDistributions.read(tmp_path / "x")
