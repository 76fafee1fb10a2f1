"""Compute AP@K and P@K of ultra-fine-grained expansion on both sides (UltraWiki, section 6.1).

Pos measures the ranking against P − N, Neg against N, and Comb = (Pos + 100 − Neg) / 2, all in
percent. Both metrics divide by min(|truth|, K), so that a perfect ranking reaches 100 whatever the
class's size.

A :data:`Protocol` says what counts as truth. UltraWiki's files hold no seeds among it. MESED's do: its
authors count them, although their lists hold none of the first three.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from engine.queries.formats import Truth

CUTOFFS = (10, 20, 50, 100)

Hits = npt.NDArray[np.bool_]

Ranked = Sequence[int] | npt.NDArray[np.int32]

Protocol = Literal["seedset", "mesed", "mesed-program"]
"""Which truth is measured against.

- ``seedset``: without the query's seeds, which no list holds. A perfect ranking reaches 100.
- ``mesed``: with the seeds that the file names. They count in min(|truth|, K) and can never be hit, so that a
  perfect ranking of a class of 13 with 3 seeds reaches 10/13 at K = 100.
- ``mesed-program``: as the program of MESED's authors does it. Besides the above, three entries come off
  a list that begins with the seeds, however many these are (so that seeds from the fourth on stay in front),
  and of a list that is cut to more than 50 entries the divisor is at most its length.
"""

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)

_SEEDS_OFF = 3
"""Entries that MESED's program takes off its lists, which begin with the seeds."""

_LONG_LIST = 50
"""Entries of a list beyond which MESED's program divides by no more than its length."""


def first_hits(ranked: Ranked, truth: Set[int]) -> Hits:
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
    ranked: Ranked,
    positive: Truth,
    negative: Truth,
    protocol: Protocol = "seedset",
    seeds: Sequence[int] = (),
) -> dict[str, float]:
    """Return one query's columns in percent: ``PosMAP@10`` … ``CombP@100``.

    Args:
        ranked: ids, best first, without seeds.
        positive, negative: the truth on both sides.
        protocol: see :data:`Protocol`.
        seeds: the positive ones, in the order of the file.
    """
    columns: dict[str, float] = {}
    for side, truth in (("Pos", positive), ("Neg", negative)):
        columns |= _side(side, ranked, truth, protocol, seeds)
    for column in (f"{name}@{k}" for name in ("MAP", "P") for k in CUTOFFS):
        columns[f"Comb{column}"] = (columns[f"Pos{column}"] + 100 - columns[f"Neg{column}"]) / 2
    return columns


def _side(
    side: str, ranked: Ranked, truth: Truth, protocol: Protocol, seeds: Sequence[int]
) -> dict[str, float]:
    """Return the columns of one side, such as ``PosMAP@10``."""
    ids, size = truth.ids, truth.size
    if protocol != "seedset":
        ids, size = ids | truth.seeds, size + len(truth.seeds)
    if protocol == "mesed-program":
        ranked = [*seeds, *map(int, ranked)][_SEEDS_OFF:]
    hits = first_hits(ranked, ids)
    columns = {}
    for name, metric in (("MAP", average_precision), ("P", precision)):
        for k in CUTOFFS:
            length = min(len(hits), k)
            short = protocol == "mesed-program" and length > _LONG_LIST
            columns[f"{side}{name}@{k}"] = 100 * metric(hits, min(size, length) if short else size, k)
    return columns


def fine_columns(ranked: Ranked, members: Set[int], prefix: str = "Fine") -> dict[str, float]:
    """Return MAP and P in percent against the fine-grained class: ``FineMAP@10`` … ``FineP@100``.

    This is the level at which UltraWiki's section 6.2 and appendix J compare methods (MAP@100 of 82.08 for
    RetExpan). An entity of the class that the query does not ask for counts here.

    Args:
        ranked: ids, best first.
        members: the class without the query's seeds.
        prefix: of the columns' names.
    """
    hits = first_hits(ranked, members)
    return {
        f"{prefix}{name}@{k}": 100 * metric(hits, len(members), k)
        for name, metric in (("MAP", average_precision), ("P", precision))
        for k in CUTOFFS
    }


RECALLS = (10, 20, 50, 100, 200, 1000)


def recall_columns(ranked: Ranked, truth: Truth) -> dict[str, float]:
    """Return Recall@K in percent, the share of the positive truth among the first K: ``Recall@10`` …"""
    found = np.cumsum(first_hits(ranked, truth.ids))
    at = {k: int(found[min(k, len(found)) - 1]) if len(found) else 0 for k in RECALLS}
    return {f"Recall@{k}": 100 * n / truth.size if truth.size else 0.0 for k, n in at.items()}


class Means:
    """Sum columns query by query; of the queries themselves nothing is kept."""

    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self.queries = 0

    def add(self, columns: Mapping[str, float]) -> None:
        """Count one query's columns. All queries have the same."""
        self.queries += 1
        for name, value in columns.items():
            self._sums[name] += value

    def result(self) -> dict[str, float]:
        """Return the mean of every column over queries, and the summaries that the papers' tables show.

        ``CombMAP`` is the mean of the four CombMAP columns, ``Avg`` that of the eight Comb columns
        (``PosAvg`` and ``NegAvg`` likewise), ``queries`` the number of queries.

        Raises:
            ValueError: no query.
        """
        if not self.queries:
            raise ValueError("no query was measured")
        means = summarised({name: total / self.queries for name, total in self._sums.items()})
        return {name: round(value, 4) for name, value in means.items()} | {"queries": self.queries}


SUMMARIES = {
    **{f"{side}MAP": tuple(f"{side}MAP@{k}" for k in CUTOFFS) for side in ("Pos", "Neg", "Comb")},
    **{
        name: tuple(f"{side}{m}@{k}" for m in ("MAP", "P") for k in CUTOFFS)
        for side, name in (("Pos", "PosAvg"), ("Neg", "NegAvg"), ("Comb", "Avg"))
    },
}
"""Columns that are the mean of others."""


def summarised(means: Mapping[str, float]) -> dict[str, float]:
    """Return columns with their :data:`SUMMARIES`, of one query or of many."""
    return {**means, **{name: float(np.mean([means[c] for c in of])) for name, of in SUMMARIES.items()}}


def average(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return the mean of every column over queries, and the summaries: see :meth:`Means.result`.

    Raises:
        ValueError: no query.
    """
    means = Means()
    for columns in measured:
        means.add(columns)
    return means.result()
