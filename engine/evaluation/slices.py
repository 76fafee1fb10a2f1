"""Cut an evaluation into groups of queries, as the papers' tables do, and into groups of entities.

============== ======================================================= ============================
slice          groups                                                  shown in
============== ======================================================= ============================
attributes     A+ = A-, A+ != A- (by their names)                      UltraWiki, table 5
counts         (\\|A+\\|, \\|A-\\|)                                    UltraWiki, table 6
negative_seeds as many as the query has                                (figure 9 takes them away)
tail           true entities by number of sentences: found among 100   (table 19 is in long_tail.py)
============== ======================================================= ============================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from engine.evaluation.measuring import tail_labels
from engine.evaluation.metrics import Means
from engine.evaluation.scores import GROUP_QUERIES, Scores

Row = Mapping[str, Any]

SAME, DIFFERENT = "A+ = A−", "A+ ≠ A−"


def _names(row: Row, side: str) -> list[str]:
    return [name for name, _ in row[f"{side}_attributes"] or ()]


def _attributes(row: Row) -> str | None:
    """Return whether a query's sides are about the same attributes; None where the file does not say."""
    sides = set(_names(row, "positive")), set(_names(row, "negative"))
    if not all(sides):
        return None
    return SAME if sides[0] == sides[1] else DIFFERENT


def _counts(row: Row) -> str | None:
    sides = [len(_names(row, side)) for side in ("positive", "negative")]
    return f"({sides[0]}, {sides[1]})" if all(sides) else None


SLICES: Mapping[str, Callable[[Row], str | None]] = {
    "attributes": _attributes,
    "counts": _counts,
    "negative_seeds": lambda row: str(row["negative_seeds"]),
}
"""The groups of queries: by name, what says to which one a query belongs."""


def slices(scores: Scores) -> dict[str, dict[str, dict[str, float]]]:
    """Return the mean columns of every group of every slice.

    Slices that the queries say nothing of are left out, and those with one group only, which is the whole.
    """
    table = scores.table.select([*_ABOUT, *scores.metrics])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, group_of in SLICES.items():
        groups: dict[str, Means] = {}
        for row in (row for batch in table.to_batches(GROUP_QUERIES) for row in batch.to_pylist()):
            if (group := group_of(row)) is not None:
                groups.setdefault(group, Means()).add({c: row[c] for c in scores.metrics})
        if len(groups) > 1:
            found[name] = {group: groups[group].result() for group in sorted(groups)}
    return found


_ABOUT = ("positive_attributes", "negative_attributes", "negative_seeds")


def tail(scores: Scores) -> list[dict[str, Any]]:
    """Return for each group of entities by number of sentences how many of the truth were found.

    Empty where the sentences are not known. ``truth`` counts an entity once for every query that it is an
    answer to; ``found`` those of it among the first 100; ``share`` is the second of the first, in percent.
    """
    truths = [one for one in scores.column("tail_truth") if one is not None]
    if not truths or len(truths) < len(scores):
        return []
    truth, found = np.array(truths).sum(axis=0), np.array(scores.column("tail_found")).sum(axis=0)
    return [
        {"sentences": label, "truth": int(t), "found": int(f), "share": round(100 * f / t, 4) if t else None}
        for label, t, f in zip(tail_labels(), truth, found, strict=True)
    ]
