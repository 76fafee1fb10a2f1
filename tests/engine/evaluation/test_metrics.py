import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.evaluation.metrics import (
    CUTOFFS,
    average,
    average_precision,
    first_hits,
    measure,
    precision,
)
from engine.queries.formats import Truth

RANKED = st.lists(st.integers(0, 60), max_size=120)
TRUTH = st.frozensets(st.integers(0, 60), max_size=60)


def test_average_precision_by_hand() -> None:
    # Hits at ranks 1, 3 and 4 of a truth of 5: (1/1 + 2/3 + 3/4) / min(5, 10).
    hits = first_hits([7, 0, 8, 9, 1], {7, 8, 9, 10, 11})
    assert average_precision(hits, 5, 10) == pytest.approx((1 + 2 / 3 + 3 / 4) / 5)
    # Cut at 3, the hit at rank 4 is not seen, and three entities are all that could be found.
    assert average_precision(hits, 5, 3) == pytest.approx((1 + 2 / 3) / 3)


def test_precision_divides_by_the_smaller_of_truth_and_cutoff() -> None:
    hits = first_hits([7, 0, 8, 9, 1], {7, 8, 9, 10})
    assert precision(hits, 4, 10) == pytest.approx(3 / 4)
    assert precision(hits, 4, 3) == pytest.approx(2 / 3)


def test_a_repeated_entity_counts_once_and_keeps_its_place() -> None:
    assert first_hits([5, 5, 6], {5, 6}).tolist() == [True, False, True]
    assert average_precision(first_hits([5, 5, 6], {5, 6}), 2, 10) == pytest.approx((1 + 2 / 3) / 2)


def test_an_empty_truth_and_an_empty_ranking_measure_zero() -> None:
    assert average_precision(first_hits([1, 2], set()), 0, 10) == 0
    assert precision(first_hits([1, 2], set()), 0, 10) == 0
    assert precision(first_hits([], {1}), 1, 10) == 0


def test_a_true_entity_that_the_vocabulary_lacks_lowers_the_score() -> None:
    columns = measure([1, 2], Truth(frozenset({1, 2}), ("nowhere", "no one")), Truth())
    assert columns["PosP@10"] == 50
    assert columns["PosMAP@10"] == 50


def test_combined_columns_by_hand() -> None:
    columns = measure([1, 9, 2], Truth(frozenset({1, 2})), Truth(frozenset({9})))
    assert columns["PosMAP@10"] == pytest.approx(100 * (1 + 2 / 3) / 2)
    assert columns["NegMAP@10"] == pytest.approx(50)
    assert columns["CombMAP@10"] == pytest.approx((100 * (1 + 2 / 3) / 2 + 100 - 50) / 2)
    assert columns["CombP@10"] == pytest.approx((100 + 100 - 100) / 2)
    assert len(columns) == 3 * 2 * len(CUTOFFS)


def test_average_is_over_queries_and_summaries_over_columns() -> None:
    rows = [
        measure([1], Truth(frozenset({1})), Truth(frozenset({2}))),
        measure([2], Truth(frozenset({1})), Truth(frozenset({2}))),
    ]
    means = average(rows)
    assert means["queries"] == 2
    assert means["PosMAP@10"] == means["NegP@100"] == 50
    assert means["CombMAP"] == means["Avg"] == 50
    assert means["PosAvg"] == means["NegAvg"] == 50
    with pytest.raises(ValueError, match="no query"):
        average([])


@given(RANKED, TRUTH, st.sampled_from(CUTOFFS))
def test_both_metrics_lie_between_zero_and_one(ranked, truth, k: int) -> None:
    hits = first_hits(ranked, truth)
    for metric in (average_precision, precision):
        assert 0 <= metric(hits, len(truth), k) <= 1 + 1e-12
    assert average_precision(hits, len(truth), k) <= precision(hits, len(truth), k) + 1e-12


@given(TRUTH.filter(bool), st.sampled_from(CUTOFFS), st.randoms())
def test_the_truth_itself_in_any_order_is_perfect(truth, k: int, random) -> None:
    ranked = sorted(truth)
    random.shuffle(ranked)
    hits = first_hits(ranked, truth)
    assert average_precision(hits, len(truth), k) == pytest.approx(1)
    assert precision(hits, len(truth), k) == 1


@given(st.lists(st.integers(0, 60), unique=True, max_size=120), TRUTH, st.sampled_from(CUTOFFS))
def test_average_precision_agrees_with_its_definition(ranked, truth, k: int) -> None:
    total = found = 0.0
    for rank, entity in enumerate(ranked[:k], 1):
        if entity in truth:
            found += 1
            total += found / rank
    expected = total / min(len(truth), k) if truth else 0
    hits = first_hits(np.array(ranked, np.int32), truth)
    assert average_precision(hits, len(truth), k) == pytest.approx(expected)
