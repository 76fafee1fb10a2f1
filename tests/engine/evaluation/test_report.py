from collections.abc import Sequence

import numpy as np
import pytest

from engine.errors import QueryError
from engine.evaluation.report import Runner, class_rows, evaluate, key_figures, markdown, side_rows
from engine.queries.formats import LabelledQuery, QuerySet, RefusedQuery, Truth
from engine.query import Expansion, Query, Ranking
from engine.refusals import Code, Refusal


def labelled(name: str, label: str, positive: set[int], negative: set[int]) -> LabelledQuery:
    query = Query(name, (0,), top_k=3)
    return LabelledQuery(query, label, Truth(frozenset(positive)), Truth(frozenset(negative)))


def runner_of(ids: list[int], batches: list[int]) -> Runner:
    def run(queries: Sequence[Query]) -> list[Expansion]:
        batches.append(len(queries))
        assert all(query.top_k == 100 for query in queries)  # the longest metric looks at 100
        ranking = Ranking(np.array(ids, np.int32), np.zeros(len(ids), np.float32))
        return [Expansion(query, ranking) for query in queries]

    return run


QUERIES = QuerySet(
    [labelled("a", "x", {1}, {2}), labelled("b", "x", {3}, {2}), labelled("c", "y", {1}, set())],
    [RefusedQuery("q.json", 4, "d", Refusal(Code.UNKNOWN_ENTITY, "unknown entity 'ion'"))],
)


def test_overall_and_by_class() -> None:
    batches: list[int] = []
    done: list[int] = []
    report = evaluate(runner_of([1, 2], batches), QUERIES, 2, done.append)
    assert batches == done == [2, 1]
    assert report["overall"]["queries"] == 3
    assert report["overall"]["PosMAP@10"] == pytest.approx(200 / 3, abs=1e-4)
    assert report["by_class"]["x"]["NegMAP@10"] == 50
    assert report["by_class"]["y"]["CombP@100"] == 100  # no negative truth: nothing can intrude
    assert [r["query_id"] for r in report["refused"]] == ["d"]
    assert report["seconds_per_query"] >= 0


def test_time_is_that_of_the_stages_also_where_they_refused_a_query() -> None:
    def run(queries: Sequence[Query]) -> list[Expansion]:
        return [Expansion(query, seconds={} if query.id == "b" else {"Slow": 60.0}) for query in queries]

    assert evaluate(run, QUERIES)["seconds_per_query"] == 40


def test_a_query_without_positive_truth_is_listed_not_measured() -> None:
    queries = QuerySet([*QUERIES.queries, labelled("e", "x", set(), {2})])
    report = evaluate(runner_of([1], []), queries)
    assert report["overall"]["queries"] == 3
    assert [(r["query_id"], "no positive truth" in r["reason"]) for r in report["refused"]] == [("e", True)]


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(QueryError, match="pos_gt"):
        evaluate(runner_of([1], []), QuerySet([labelled("e", "x", set(), set())]))


def test_tables_hold_what_the_report_says() -> None:
    report = evaluate(runner_of([1, 2], []), QUERIES)
    header, rows = side_rows({"m": report})
    assert len(header) == len(rows[0]) == 11
    assert [row[1] for row in rows] == ["Pos", "Neg", "Comb"]
    assert rows[2][-1] == f"{report['overall']['Avg']:.2f}"
    assert [row[0] for row in class_rows(report)[1]] == ["x", "y", "all"]
    text = markdown({"m": report}, "m on a bundle")
    assert text.startswith("# m on a bundle\n\n| method |")
    assert "- refused: `q.json:4` d: unknown entity 'ion'" in text


def test_together_a_call_holds_one_query_of_each_class() -> None:
    """Three queries of x and two of y: the third call holds the third of x alone."""
    made = [
        labelled(f"{label}{i}", label, {1} if label == "x" else {3}, set()) for label in "xy" for i in (1, 2)
    ]
    made += [labelled("x3", "x", {1}, set())]
    calls = []

    def run(queries: Sequence[Query]) -> list[Expansion]:
        calls.append([query.id for query in queries])
        return [Expansion(q, Ranking(np.array([1], np.int32), np.zeros(1, np.float32))) for q in queries]

    report = evaluate(run, QuerySet(made), batch_size=1, batch_dependent=True)
    assert calls == [["x1", "y1"], ["x2", "y2"], ["x3"]]
    assert report["by_class"]["x"]["PosMAP@10"] == 100
    assert report["by_class"]["y"]["PosMAP@10"] == 0
    assert (report["by_class"]["x"]["queries"], report["by_class"]["y"]["queries"]) == (3, 2)


def test_without_negatives_the_table_is_that_of_the_positive_side() -> None:
    """Truth {2, 3}, ranking 2, 4, 3: AP = (1 + 2/3) / 2, P = 1; and truth {5}: both 0."""
    queries = QuerySet([labelled("a", "x", {2, 3}, set()), labelled("b", "y", {5}, set())])
    report = evaluate(runner_of([2, 4, 3], []), queries)
    columns = ["MAP@10", "MAP@20", "MAP@50", "MAP@100", "P@10", "P@20", "P@50", "P@100", "Avg"]
    assert side_rows({"m": report}) == (
        ["method", *columns],
        [["m", *["41.67"] * 4, *["50.00"] * 4, "45.83"]],
    )
    header, rows = class_rows(report)
    assert header == ["class", "queries", *columns]
    assert rows[0] == ["x", "1", *["83.33"] * 4, *["100.00"] * 4, "91.67"]
    assert [row[0] for row in rows] == ["x", "y", "all"]
    assert key_figures(report) == {"MAP@10": 41.6667, "MAP@100": 41.6667, "Avg": 45.8333}
    assert "Comb" not in markdown({"m": report}, "m")
    assert list(key_figures(evaluate(runner_of([1], []), QUERIES))) == ["CombMAP", "Avg"]


def test_negative_seeds_alone_are_a_negative_side() -> None:
    query = LabelledQuery(Query("a", (0,), (1,), top_k=3), "x", Truth(frozenset({2})))
    report = evaluate(runner_of([2], []), QuerySet([query]))
    assert [row[1] for row in side_rows({"m": report})[1]] == ["Pos", "Neg", "Comb"]
