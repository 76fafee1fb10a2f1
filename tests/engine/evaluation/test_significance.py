"""Intervals and tests against plain computations, and the same figures for the same seed."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.evaluation.comparison import Against
from engine.evaluation.metrics import SUMMARIES
from engine.evaluation.scores import Scores
from engine.evaluation.significance import holm, in_order_of, intervals, randomisation_p

VALUES = st.lists(st.floats(-50, 50).map(lambda x: round(x, 2)), min_size=2, max_size=8)


@settings(max_examples=20)
@given(VALUES)
def test_the_randomisation_test_is_near_the_count_of_all_flips(values: list[float]) -> None:
    difference = np.array(values)
    flips = [abs(sum(s * d for s, d in zip(signs, values, strict=True))) for signs in signs_of(len(values))]
    exact = np.mean([flip >= abs(sum(values)) - 1e-9 for flip in flips])
    assert randomisation_p(difference, 4000) == pytest.approx(exact, abs=0.04)


def signs_of(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((-1, 1), repeat=n))


def test_no_difference_is_never_significant_and_a_constant_one_is() -> None:
    assert randomisation_p(np.zeros(30)) == 1
    assert randomisation_p(np.full(30, 0.5), 2000) == pytest.approx(1 / 2001)


def test_the_interval_is_that_of_resampled_means() -> None:
    values = np.random.default_rng(0).normal(50, 10, (80, 2))
    low, high = intervals(values, 4000)
    draws = np.random.default_rng(1)
    means = [values[draws.integers(0, 80, 80)].mean(axis=0) for _ in range(4000)]
    for found, quantile in ((low, 0.025), (high, 0.975)):
        np.testing.assert_allclose(found, np.quantile(means, quantile, axis=0), atol=0.25)
    assert (low < values.mean(axis=0)).all()
    np.testing.assert_array_equal(intervals(values, 4000), [low, high])
    np.testing.assert_array_equal(intervals(np.full((5, 1), 7.0)), [[7], [7]])


def test_holm_by_hand() -> None:
    assert holm({"a": 0.04, "b": 0.01, "c": 0.03}) == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_scores_are_paired_by_query() -> None:
    values = np.array([[1.0], [2.0], [3.0]])
    np.testing.assert_array_equal(in_order_of(["c", "a", "b"], ["a", "b", "c"], values), [[2], [3], [1]])
    np.testing.assert_array_equal(in_order_of(["c", "a", "b"], ["b"], values), [[3]])
    with pytest.raises(ValueError, match="other queries"):
        in_order_of(["a"], ["b"], values[:1])


def test_methods_are_tested_on_the_queries_that_both_answered() -> None:
    def scored(**values: float) -> Scores:
        columns = {name: list(values.values()) for name in SUMMARIES["PosMAP"]}
        return Scores(pa.table({"query_id": list(values), **columns}))

    scores = {"base": scored(a=10.0, b=20.0), "some": scored(b=25.0, c=99.0), "none": scored(c=1.0)}
    found = Against("base", "PosMAP", scores).tests()
    assert {name: (one["queries"], one["difference"]) for name, one in found.items()} == {"some": (1, 5)}
    assert Against("missing", "PosMAP", scores).tests() == {}
