"""Compare methods on one set of queries: the document of a report, as programs read it.

The document is plain JSON and holds no time, no path and no date: the same bundle and queries give the same
bytes. Times are kept beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.evaluation.cells import Measured
from engine.evaluation.metrics import CUTOFFS, SUMMARIES
from engine.evaluation.scores import Scores
from engine.evaluation.significance import (
    LEVEL,
    PERMUTATIONS,
    RESAMPLES,
    SEED,
    holm,
    in_order_of,
    intervals,
    randomisation_p,
)

FORMAT = 1

Row = dict[str, Any]
Document = dict[str, Any]

_METRICS = tuple(
    f"{side}{name}@{k}" for side in ("Pos", "Neg", "Comb") for name in ("MAP", "P") for k in CUTOFFS
)
INTERVALS = (*_METRICS, *SUMMARIES)
"""Columns that get an interval."""


def main_column(negatives: bool) -> str:
    """Return the column by which methods are compared: the mean over the cut-offs of CombMAP, or of MAP."""
    return "CombMAP" if negatives else "PosMAP"


def row_of(method: str, measured: Measured) -> Row:
    """Return a method's row: its means with their intervals, by class, by slice."""
    report = measured.report
    values = by_query(measured.scores, INTERVALS)
    low, high = intervals(values)
    return {
        "method": method,
        "pipeline": report["pipeline"],
        "bundle": report["bundle"],
        "overall": report["overall"],
        "intervals": {
            name: [round(float(a), 4), round(float(b), 4)]
            for name, a, b in zip(INTERVALS, low, high, strict=True)
        },
        "by_class": report["by_class"],
        "slices": report["slices"],
        "tail": report["tail"],
        "confusion": report["confusion"],
        "degraded": report["degraded"],
        "degraded_such_as": _first_reason(measured.scores),
    }


def _first_reason(scores: Scores) -> str:
    """Return what was left out of the first answer that lacks something; nothing if all are whole."""
    return next((reasons[0] for reasons in scores.column("degraded") if reasons), "")


def missing_row(method: str, pipeline: str, why_not: str) -> Row:
    """Return the row of a method that could not be measured."""
    return {"method": method, "pipeline": pipeline, "why_not": why_not}


def by_query(scores: Scores, columns: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return measured or summarised columns of every query, float64 [Q, columns]."""
    return np.stack([scores.values(SUMMARIES.get(name, (name,))).mean(axis=1) for name in columns], axis=1)


class Against(NamedTuple):
    """The scores of every measured method, and the method that the others are compared with."""

    baseline: str
    column: str
    scores: Mapping[str, Scores]

    def tests(self) -> dict[str, dict[str, float]]:
        """Return each method's difference from the baseline: with its interval and p values, by method.

        Methods are compared on the queries that both answered. ``p`` is a paired randomisation test's,
        ``p_holm`` the same adjusted for the number of methods. Those that answered none of the
        baseline's queries are left out, and all where the baseline was not measured.
        """
        if self.baseline not in self.scores:
            return {}
        base = self.scores[self.baseline]
        differences = {
            name: paired(own, base, self.column)
            for name, own in self.scores.items()
            if name != self.baseline and not set(own.ids).isdisjoint(base.ids)
        }
        p_values = {name: randomisation_p(one[:, 0]) for name, one in differences.items()}
        adjusted = holm(p_values)
        found = {}
        for name, one in differences.items():
            (low,), (high,) = intervals(one)
            found[name] = {
                "queries": len(one),
                "difference": round(float(one.mean()), 4),
                "low": round(float(low), 4),
                "high": round(float(high), 4),
                "p": round(p_values[name], 6),
                "p_holm": round(adjusted[name], 6),
            }
        return found


def paired(own: Scores, base: Scores, column: str) -> npt.NDArray[np.float64]:
    """Return a column less that of another method, on the queries that both answered, float64 [Q, 1].

    Raises:
        ValueError: they have no query in common.
    """
    common = sorted(set(own.ids) & set(base.ids))
    mine, theirs = (in_order_of(one.ids, common, by_query(one, [column])) for one in (own, base))
    return mine - theirs


def document(
    about: Mapping[str, Any], rows: Sequence[Row], against: Against, sweeps: Sequence[Mapping[str, Any]]
) -> Document:
    """Return the whole report.

    Args:
        about: bundle, queries, protocol.
        rows: of :func:`row_of` and :func:`missing_row`.
        against: what the rows are tested against.
        sweeps: see :mod:`engine.evaluation.sweeps`.
    """
    tests = against.tests()
    return {
        "format": FORMAT,
        **about,
        "statistics": {
            "intervals": f"percentile bootstrap over queries, {RESAMPLES} resamples, {100 * LEVEL:.0f} %",
            "test": f"paired randomisation (sign flips), {PERMUTATIONS} draws, two-sided; Holm over methods",
            "column": against.column,
            "baseline": against.baseline,
            "seed": SEED,
        },
        "rows": [{**row, "against": tests[row["method"]]} if row["method"] in tests else row for row in rows],
        "sweeps": [one for one in sweeps if "why_not" not in one],
        "sweeps_left_out": [one for one in sweeps if "why_not" in one],
    }


COMPARED = ("PosMAP@10", "PosMAP@100", "PosMAP", "NegMAP", "CombMAP", "Avg")
COMPARED_POSITIVE = ("PosMAP@10", "PosMAP@100", "PosMAP", "PosAvg")
"""Where no query has a negative side, Neg and Comb columns say nothing."""


def differences(new: Document, old: Document) -> tuple[list[str], list[str], list[list[str]]]:
    """Return what a second report has otherwise: remarks, header and rows of a table of new less old."""
    remarks = [
        f"{name}: {new.get(name)}, and {old.get(name)} in the other"
        for name in ("bundle", "truth_digest", "queries", "protocol")
        if new.get(name) != old.get(name)
    ]
    mine, theirs = ({row["method"]: row for row in one["rows"]} for one in (new, old))
    remarks += [f"{name}: only here" for name in mine if name not in theirs]
    remarks += [f"{name}: only in the other" for name in theirs if name not in mine]
    columns = COMPARED if new["negatives"] else COMPARED_POSITIVE
    rows = []
    for name in (name for name in mine if name in theirs):
        here, there = mine[name], theirs[name]
        if "why_not" in here or "why_not" in there:
            if ("why_not" in here) != ("why_not" in there):
                remarks.append(f"{name}: measured only {'in the other' if 'why_not' in here else 'here'}")
            continue
        cells = []
        for column in columns:
            value, change = here["overall"][column], here["overall"][column] - there["overall"][column]
            cells.append(f"{value:.2f} ({change:+.2f})")
        rows.append([name, *cells])
    return remarks, ["method", *columns], rows
