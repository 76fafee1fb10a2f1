"""Compute AP@K and P@K of ultra-fine-grained expansion on both sides (UltraWiki, section 6.1).

Pos measures the ranking against P − N, Neg against N, and Comb = (Pos + 100 − Neg) / 2, all in
percent. Both metrics divide by min(|truth|, K), so that a perfect ranking reaches 100 whatever the
class's size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import numpy.typing as npt

from engine.queries.formats import Truth

CUTOFFS = (10, 20, 50, 100)

Hits = npt.NDArray[np.bool_]


def first_hits(ranked: Sequence[int] | npt.NDArray[np.int32], truth: Set[int]) -> Hits:
    """Return for each place whether a true entity stands there for the first time, bool [n].

    A repeated entity keeps its place and counts once.
    """
    seen: set[int] = set()
    hits = np.zeros(len(ranked), np.bool_)
    for place, entity in enumerate(map(int, ranked)):
        hits[place] = entity in truth and entity not in seen
        seen.add(entity)
    return hits


def average_precision(hits: Hits, size: int, k: int) -> float:
    """Return AP@k in 0..1: the sum of hits so far / i over hits at ranks i ≤ k, by min(size, k).

    Args:
        hits: see :func:`first_hits`.
        size: how many entities are true. Where none is, there is nothing to hit: 0.
        k: the cut-off.
    """
    places = np.flatnonzero(hits[:k])
    precisions = np.arange(1, len(places) + 1) / (places + 1)
    return float(precisions.sum()) / min(size, k) if size else 0.0


def precision(hits: Hits, size: int, k: int) -> float:
    """Return P@k in 0..1: hits at ranks ≤ k, divided by min(size, k); 0 for an empty truth."""
    return int(hits[:k].sum()) / min(size, k) if size else 0.0


def measure(
    ranked: Sequence[int] | npt.NDArray[np.int32], positive: Truth, negative: Truth
) -> dict[str, float]:
    """Return one query's columns in percent: ``PosMAP@10`` … ``CombP@100``."""
    columns = {}
    for side, truth in (("Pos", positive), ("Neg", negative)):
        hits = first_hits(ranked, truth.ids)
        for name, metric in (("MAP", average_precision), ("P", precision)):
            for k in CUTOFFS:
                columns[f"{side}{name}@{k}"] = 100 * metric(hits, truth.size, k)
    for column in (f"{name}@{k}" for name in ("MAP", "P") for k in CUTOFFS):
        columns[f"Comb{column}"] = (columns[f"Pos{column}"] + 100 - columns[f"Neg{column}"]) / 2
    return columns


def average(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every column over queries, and the summaries that the papers' tables show.

    ``CombMAP`` is the mean of the four CombMAP columns, ``Avg`` that of the eight Comb columns
    (``PosAvg`` and ``NegAvg`` likewise), ``queries`` the number of queries.

    Raises:
        ValueError: no query.
    """
    if not measured:
        raise ValueError("no query was measured")
    means = {name: float(np.mean([row[name] for row in measured])) for name in measured[0]}
    means["CombMAP"] = float(np.mean([means[f"CombMAP@{k}"] for k in CUTOFFS]))
    for side, name in (("Pos", "PosAvg"), ("Neg", "NegAvg"), ("Comb", "Avg")):
        columns = [means[f"{side}{m}@{k}"] for m in ("MAP", "P") for k in CUTOFFS]
        means[name] = float(np.mean(columns))
    return {name: round(value, 4) for name, value in means.items()} | {"queries": len(measured)}
