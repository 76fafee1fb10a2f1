"""Answers that were written are read back, each to its query; what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from engine.errors import FormatError, QueryError
from engine.queries.answer_table import Labels, Result
from engine.queries.formats import LabelledQuery, QuerySet
from engine.queries.results import ExpansionFolder, RunDescription
from engine.queries.stored import StoredResults
from engine.query import Expansion, Query, Ranking
from engine.storage.store import Store

N = 5
LABELS = Labels(pa.array([f"e{i}" for i in range(9)]), pa.array([[]] * 9, pa.list_(pa.string())))


def queries(ids: list[int], top_k: int = 200) -> QuerySet:
    return QuerySet([LabelledQuery(Query(f"q{i}", (i,), top_k=top_k), "x") for i in ids])


def expansion(query: Query) -> Expansion:
    """The first query has no answer, and a note."""
    n = 0 if query.id == "q0" else int(query.id[1:])
    scores = np.linspace(1, 0, n, dtype=np.float32)
    return Expansion(query, Ranking(np.arange(n, dtype=np.int32), scores), {}, ("A: no",) * (n == 0))


def written(folder: Path, some: QuerySet, finish: bool = True) -> Store:
    store = Store.open(folder)
    output = ExpansionFolder(store)
    described = RunDescription(
        method="m",
        pipeline="M()",
        bundle="b",
        queries_digest=some.digest,
        queries=len(some.queries),
        part_size=2,
    )
    run = output.begin(described, overwrite=False)
    for part, place in run.parts.items():
        output.write_part(part, [Result(expansion(q.query)) for q in some.queries[place]], LABELS)
    if finish:
        output.finish(run, [])
    return store


def test_every_query_gets_its_own_answer_in_any_order(tmp_path: Path) -> None:
    asked = queries(list(range(N)))
    stored = StoredResults.open(written(tmp_path, asked))
    stored.check(asked, 100)
    for order in ([0, 1, 2, 3, 4], [4, 0, 3]):
        wanted = [asked.queries[i].query for i in order]
        for found, query in zip(stored(wanted), wanted, strict=True):
            one = expansion(query)
            assert (found.query, found.degraded) == (query, one.degraded)
            np.testing.assert_array_equal(found.ranking.ids, one.ranking.ids)
            np.testing.assert_array_equal(found.ranking.scores, one.ranking.scores)


def test_missing_and_surplus_results_are_named(tmp_path: Path) -> None:
    stored = StoredResults.open(written(tmp_path, queries([0, 1, 2])))
    with pytest.raises(QueryError, match=r"no result of 'q3'; results of 'q0', which is not asked"):
        stored.check(queries([1, 2, 3]), 100)
    with pytest.raises(QueryError, match=r"no result of 'q3', 'q4', 'q5', 'q6', 'q7' and 1 more"):
        stored.check(queries(list(range(9))), 100)
    with pytest.raises(QueryError, match=r"results of 'q2', which is not asked"):
        stored.check(queries([0, 1]), 100)
    with pytest.raises(QueryError, match=r"other queries of the same ids"):
        stored.check(queries([0, 1, 2], top_k=150), 100)


def test_lists_that_are_cut_below_the_metrics_are_refused(tmp_path: Path) -> None:
    asked = queries([0, 1, 2], top_k=99)
    stored = StoredResults.open(written(tmp_path, asked))
    with pytest.raises(QueryError, match=r"'q0', 'q1', 'q2' asked for fewer than 100"):
        stored.check(asked, 100)


def test_a_part_of_other_queries_is_refused(tmp_path: Path) -> None:
    asked = queries(list(range(N)))
    store = written(tmp_path, asked)
    (tmp_path / "part-00001.parquet").write_bytes((tmp_path / "part-00000.parquet").read_bytes())
    with pytest.raises(QueryError, match=r"part-00001.*no result of 'q2', 'q3'; results of 'q0', 'q1'"):
        StoredResults.open(store).check(asked, 100)


def test_what_is_not_finished_or_no_output_is_refused(tmp_path: Path) -> None:
    store = written(tmp_path / "out", queries([0, 1]), finish=False)
    with pytest.raises(FormatError, match=r"unfinished; run the same `seedset expand` again"):
        StoredResults.open(store)
    with pytest.raises(FormatError, match=r"no output of `seedset expand`"):
        StoredResults.open(Store.open(tmp_path / "none"))
