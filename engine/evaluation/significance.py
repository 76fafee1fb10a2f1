"""Say how sure a figure is: bootstrap intervals over queries, and paired tests of two methods.

Everything is drawn from a seed, so that the same scores give the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 2_000
PERMUTATIONS = 10_000
LEVEL = 0.95
SEED = 13

_BLOCK = 256
"""Resamples or permutations at a time: what is in memory is this many numbers a query."""

Values = npt.NDArray[np.float64]


def intervals(values_QC: Values, resamples: int = RESAMPLES, seed: int = SEED) -> Values:
    """Return the percentile bootstrap interval of each column's mean, float64 [2, C]: low and high.

    Queries are drawn with replacement, all columns of a query together. (Queries of one ultra-fine class
    are alike, which the interval does not know: it is somewhat too narrow where several share a class.)

    Args:
        values_QC: a measured column each, float64 [Q, C].
        resamples: how many times Q queries are drawn.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    n = len(values_QC)
    means = []
    for start in range(0, resamples, _BLOCK):
        counts_BQ = draws.multinomial(n, np.full(n, 1 / n), min(_BLOCK, resamples - start))
        means.append(counts_BQ @ values_QC / n)
    tails = (1 - LEVEL) / 2
    return np.quantile(np.concatenate(means), [tails, 1 - tails], axis=0)


def randomisation_p(difference_Q: Values, permutations: int = PERMUTATIONS, seed: int = SEED) -> float:
    """Return the two-sided p value of a paired randomisation test (Fisher's) of two methods.

    Under the null hypothesis a query's two values could as well be exchanged, which flips the sign of their
    difference. p is the share of random flips whose mean difference is at least as large, the observed one
    counted among them, so that it is never 0.

    Args:
        difference_Q: one method's value less the other's, a query each, float64 [Q].
        permutations: how many flips are drawn.
        seed: of the draws.
    """
    draws = np.random.default_rng(seed)
    observed = abs(difference_Q.sum())
    slack = 1e-9 * np.abs(difference_Q).sum()  # sums of the same numbers in another order
    as_large = 0
    for start in range(0, permutations, _BLOCK):
        flips_BQ = draws.integers(0, 2, (min(_BLOCK, permutations - start), len(difference_Q))) * 2 - 1
        as_large += int((np.abs(flips_BQ @ difference_Q) >= observed - slack).sum())
    return (1 + as_large) / (1 + permutations)


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return p values adjusted for how many comparisons were made (Holm's step-down procedure)."""
    ordered = sorted(p_values, key=lambda name: p_values[name])
    adjusted: dict[str, float] = {}
    highest = 0.0
    for place, name in enumerate(ordered):
        highest = max(highest, min(1.0, (len(ordered) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def in_order_of(ids: Sequence[str], wanted: Sequence[str], values: Values) -> Values:
    """Return the rows of some queries, in their order.

    Raises:
        ValueError: none is wanted, or one is not there.
    """
    places = {one: place for place, one in enumerate(ids)}
    if not wanted or not places.keys() >= set(wanted):
        raise ValueError("the scores are of other queries")
    return values[[places[one] for one in wanted]]
