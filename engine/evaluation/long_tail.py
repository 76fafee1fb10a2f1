"""Count which entities of classes are expanded, of the long tail and of the others: UltraWiki's table 19.

The table says of 50 entities of one fine-grained class how often, in the mean, one was expected or not, and
was expanded or not. The four numbers of a row add up to 27 there, so it is read as: in how many of the
queries of the class. Here all entities of all classes are taken, each through its class' queries, and the
first 100 of an answer are what was expanded. Queries that have an entity as a seed are left out of its
counts, as no answer has it; with them a row adds up to the queries of a class.

The paper's long tail is entities whose Wikipedia entry has fewer than 1,000 words. A corpus has sentences:
here it is those with fewer than :data:`LONG_TAIL` of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from engine.evaluation.measuring import Measures
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.scores import GROUP_QUERIES, QUERIES
from engine.queries.formats import QuerySet
from engine.storage.store import Store

LONG_TAIL = 5
"""Sentences; where a group of :data:`engine.evaluation.measuring.TAIL_EDGES` begins, too."""

GROUPS = (f"{LONG_TAIL} sentences or more", f"fewer than {LONG_TAIL} sentences")

OUTCOMES = (
    "not_expected_not_expanded",
    "not_expected_expanded",
    "expected_not_expanded",
    "expected_expanded",
)

HEADER = ["entities of classes", "number", *(name.replace("_", " ") for name in OUTCOMES)]


def confusion_rows(found: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the cells of the table, below :data:`HEADER`."""
    return [[one["group"], str(one["entities"]), *(f"{one[name]:.2f}" for name in OUTCOMES)] for one in found]


def confusion(folder: Store, queries: QuerySet, measures: Measures) -> list[dict[str, Any]]:
    """Return table 19 of an evaluation: a row for each of :data:`GROUPS` that has entities.

    Empty where the sentences or the classes are not known. A row has ``group``, ``entities`` (of each class,
    so that one of two classes counts twice), and :data:`OUTCOMES`: in how many queries that came about, in
    the mean of these entities.

    Args:
        folder: of the evaluation, with its rankings.
        queries: that were measured, and maybe more.
        measures: what was measured.
    """
    if measures.sentences is None:
        return []
    is_tail_N = measures.sentences < LONG_TAIL
    counts_GO = np.zeros((len(GROUPS), len(OUTCOMES)), np.int64)
    by_id = {one.query.id: one for one in queries.queries}
    met = set()
    for query_id, ranked in _rankings(folder):
        labelled = by_id[query_id]
        if not (entities := measures.classes.get(labelled.label)):
            continue
        met.add(labelled.label)
        judged = np.array(sorted(entities - set(labelled.query.seeds)), np.int64)
        expected = np.isin(judged, list(labelled.positive.ids))
        expanded = np.isin(judged, ranked[: CUTOFFS[-1]])
        np.add.at(counts_GO, (is_tail_N[judged].astype(np.int64), 2 * expected + expanded), 1)
    of_classes = [np.array(sorted(measures.classes[label]), np.int64) for label in sorted(met)]
    sizes_G = np.bincount(is_tail_N[np.concatenate(of_classes)], minlength=len(GROUPS)) if met else [0, 0]
    return [
        {"group": group, "entities": int(size)}
        | {name: round(int(count) / int(size), 4) for name, count in zip(OUTCOMES, counts, strict=True)}
        for group, size, counts in zip(GROUPS, sizes_G, counts_GO, strict=True)
        if size
    ]


def _rankings(folder: Store) -> Iterator[tuple[str, list[int]]]:
    """Yield the id and the answer of every measured query; no more than a row group is in memory."""
    with (folder / QUERIES).open_input() as stream:
        columns = ["query_id", "ranking"]
        for batch in pq.ParquetFile(stream).iter_batches(GROUP_QUERIES, columns=columns):
            yield from zip(batch["query_id"].to_pylist(), batch["ranking"].to_pylist(), strict=True)
