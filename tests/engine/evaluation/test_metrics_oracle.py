"""Our metrics against trec_eval's, by way of ir-measures.

The numerators are the same: hits at ranks up to k, and the sum of the precisions at these ranks. The divisors
are not, because the papers' differ from trec_eval's. With R true entities:

=====  =====================  ==========================
       trec_eval              ours (UltraWiki's, MESED's)
=====  =====================  ==========================
AP@k   R, whatever k is       min(R, k)
P@k    k, however small R is  min(R, k)
=====  =====================  ==========================

So ours reach 1 for every perfect ranking; trec_eval's AP@k does not where R > k, its P@k not where R < k.
"""

from __future__ import annotations

import ir_measures
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import AP, P

from engine.evaluation.metrics import CUTOFFS, average, average_precision, first_hits, measure, precision
from engine.queries.formats import Truth

ENTITIES = st.integers(0, 150)
# trec_eval knows no ranking that names a document twice: repeated entities have tests of their own.
RANKED = st.lists(ENTITIES, unique=True, max_size=130)
TRUTH = st.frozensets(ENTITIES, min_size=1, max_size=130)
QUERIES = st.lists(st.tuples(RANKED, TRUTH, st.integers(0, 3)), min_size=1, max_size=4)

Measured = dict[tuple[int, str], float]


def trec_eval(queries: list[tuple[list[int], frozenset[int]]], missing: list[int]) -> Measured:
    """Return trec_eval's value of each query's measures; ``missing`` true names no ranking can hold."""
    relevant = {
        str(i): {f"e{e}": 1 for e in truth} | {f"missing{m}": 1 for m in range(missing[i])}
        for i, (_, truth) in enumerate(queries)
    }
    run = {
        str(i): {f"e{e}": float(-rank) for rank, e in enumerate(ranked)}
        for i, (ranked, _) in enumerate(queries)
    }
    measures = [metric @ k for metric in (AP, P) for k in CUTOFFS]
    found = ir_measures.iter_calc(measures, relevant, run)
    return {(int(one.query_id), str(one.measure)): one.value for one in found}


@given(RANKED, TRUTH, st.integers(0, 3))
def test_both_metrics_are_trec_evals_but_for_the_divisor(
    ranked: list[int], truth: frozenset[int], missing: int
) -> None:
    expected = trec_eval([(ranked, truth)], [missing])
    hits, size = first_hits(ranked, truth), len(truth) + missing
    for k in CUTOFFS:
        ours = min(size, k)
        assert average_precision(hits, size, k) * ours == pytest.approx(expected[0, f"AP@{k}"] * size)
        assert precision(hits, size, k) * ours == pytest.approx(expected[0, f"P@{k}"] * k)
        # Where the divisors agree, so do the metrics as they stand.
        if size <= k:
            assert average_precision(hits, size, k) == pytest.approx(expected[0, f"AP@{k}"])
        if size >= k:
            assert precision(hits, size, k) == pytest.approx(expected[0, f"P@{k}"])


@given(QUERIES)
def test_the_columns_are_means_over_queries_in_percent(
    queries: list[tuple[list[int], frozenset[int], int]],
) -> None:
    """A query that found nothing counts as 0, as trec_eval -c has it."""
    single = trec_eval([(ranked, truth) for ranked, truth, _ in queries], [m for *_, m in queries])
    rows = [
        measure(ranked, Truth(truth, tuple(f"missing {m}" for m in range(missing))), Truth())
        for ranked, truth, missing in queries
    ]
    sizes = [len(truth) + missing for _, truth, missing in queries]
    means = average(rows)
    for k in CUTOFFS:
        maps = [single[i, f"AP@{k}"] * size / min(size, k) for i, size in enumerate(sizes)]
        precisions = [single[i, f"P@{k}"] * k / min(size, k) for i, size in enumerate(sizes)]
        assert means[f"PosMAP@{k}"] == pytest.approx(100 * sum(maps) / len(queries), abs=1e-3)
        assert means[f"PosP@{k}"] == pytest.approx(100 * sum(precisions) / len(queries), abs=1e-3)
