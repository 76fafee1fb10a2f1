"""What is written of every query: exact, whole, and read by other tools as it is meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow.parquet as pq
import pytest
from ir_measures import AP

from engine.evaluation.cells import measure_into, with_confusion
from engine.evaluation.long_tail import OUTCOMES, confusion
from engine.evaluation.measuring import Measures, classes_of, tail_labels
from engine.evaluation.report import markdown
from engine.evaluation.scores import GROUP_QUERIES, Scores, finished
from engine.queries.formats import LabelledQuery, QuerySet, Truth
from engine.query import Expansion, Query, Ranking
from engine.storage.store import Store

SAME = ((("period", ("Jurassic",)),), (("period", ("Cretaceous",)),))
OTHER = ((("period", ("Jurassic",)), ("order", ("a", "b"))), (("order", ("c",)),))


def labelled(number: int, about=SAME, label: str = "big lizards") -> LabelledQuery:
    positive, negative = about
    sides = {"positive_attributes": positive, "negative_attributes": negative}
    query = Query(f"{label}-{number}", (0, 1, 2), (3, 4), **sides)
    truth = Truth(frozenset({5 + number % 3, 9, 12}), ("nobody",)), Truth(frozenset({7}))
    return LabelledQuery(query, label, *truth)


def ranking(query: Query) -> Ranking:
    ids = np.random.default_rng(len(query.id)).permutation(np.arange(5, 30)).astype(np.int32)
    return Ranking(ids, np.zeros(len(ids), np.float32))


def run(queries: Sequence[Query]) -> list[Expansion]:
    return [
        Expansion(q, ranking(q), {"A": 0.25, "B": 0.5}, ("A: note",) * (q.id[-1] == "1")) for q in queries
    ]


QUERIES = QuerySet([labelled(i, (SAME, OTHER)[i % 2]) for i in range(4)])
SENTENCES = np.array([0] * 9 + [1] + [3, 3, 60] + [7] * 20)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = Store.open(tmp_path_factory.mktemp("scores"))
    measures = Measures(classes=classes_of(QUERIES.queries), sentences=SENTENCES)
    measure_into(folder, {"method": "my method"}, run, QUERIES, measures, batch_size=3)
    return folder


def test_a_row_says_what_was_asked_and_found(folder: Store) -> None:
    rows = pq.read_table(f"{folder.path}/queries.parquet").to_pylist()
    assert [row["query_id"] for row in rows] == [q.query.id for q in QUERIES.queries]
    first, second = rows[:2]
    assert (first["class"], first["positive_seeds"], first["negative_seeds"]) == ("big lizards", 3, 2)
    assert second["positive_attributes"] == [("period", ["Jurassic"]), ("order", ["a", "b"])]
    assert (first["positive_truth"], first["negative_truth"]) == (4, 1)
    assert (first["seconds"], first["degraded"], second["degraded"]) == (0.75, [], ["A: note"])
    assert first["ranking"] == ranking(QUERIES.queries[0].query).ids.tolist()
    assert 0 < first["PosMAP@10"] < 100


def test_means_of_the_rows_are_the_report(folder: Store) -> None:
    report = finished(folder)
    assert report is not None
    table = pq.read_table(f"{folder.path}/queries.parquet")
    for column in ("PosMAP@10", "NegP@100", "CombMAP@50", "FineMAP@20"):
        assert report["overall"][column] == pytest.approx(np.mean(table[column].to_numpy()), abs=1e-4)


def test_trec_eval_reads_the_run_and_the_truth(folder: Store) -> None:
    """Spaces in ids are no columns, ties are none for it, and a name that no list holds counts as true."""
    qrels = list(ir_measures.read_trec_qrels(f"{folder.path}/positive.qrels"))
    scored = list(ir_measures.read_trec_run(f"{folder.path}/run.trec"))
    assert {one.query_id for one in scored} == {f"big%20lizards-{i}" for i in range(4)}
    found = {one.query_id: one.value for one in ir_measures.iter_calc([AP @ 100], qrels, scored)}
    scores = Scores.read(folder)
    for query_id, ours in zip(scores.ids, scores.column("PosMAP@100"), strict=True):
        assert ours == pytest.approx(100 * found[query_id.replace(" ", "%20")])


def test_queries_are_grouped_by_what_they_are_about(folder: Store) -> None:
    report = finished(folder)
    assert report is not None
    scores = Scores.read(folder)
    by_place = dict(zip(scores.ids, scores.column("PosMAP@10"), strict=True))
    for name, (even, odd) in {"attributes": ("A+ = A−", "A+ ≠ A−"), "counts": ("(1, 1)", "(2, 1)")}.items():
        groups = report["slices"][name]
        for group, numbers in ((even, (0, 2)), (odd, (1, 3))):
            own = [by_place[f"big lizards-{i}"] for i in numbers]
            assert groups[group]["PosMAP@10"] == pytest.approx(np.mean(own), abs=1e-4)
    assert "negative_seeds" not in report["slices"], "one group is the whole"


def test_the_long_tail_by_hand(folder: Store) -> None:
    """Entities 5 to 8 have no sentence, 9 has one, 12 has sixty; every list holds them all."""
    report = finished(folder)
    assert report is not None
    tail = {one["sentences"]: (one["truth"], one["found"], one["share"]) for one in report["tail"]}
    assert list(tail) == tail_labels() == ["0", "1", "2-4", "5-9", "10-19", "20-49", "50+"]
    assert tail["0"] == tail["1"] == tail["50+"] == (4, 4, 100)
    assert tail["2-4"] == (0, 0, None)


def test_expected_and_expanded_by_hand(tmp_path: Path) -> None:
    """UltraWiki's table 19: of the class a, entities 0 to 3 have few sentences; b is of one query and two."""
    queries = QuerySet(
        [
            LabelledQuery(Query("a-0", (0,), (4,)), "a", Truth(frozenset({1, 5})), Truth(frozenset({2}))),
            LabelledQuery(Query("a-1", (1, 5), ()), "a", Truth(frozenset({0, 3}))),
            LabelledQuery(Query("b-0", (6,), ()), "b", Truth(frozenset({7}))),
            LabelledQuery(Query("c-0", (8,), ()), "c", Truth(frozenset({9}))),
        ]
    )
    # Past the first 100 nothing is expanded.
    answers = {"a-0": [1, 2], "a-1": [*range(100, 199), 3, 0], "b-0": [5, 7], "c-0": [9]}
    lists = {name: np.array(ids, np.int32) for name, ids in answers.items()}

    def answer(asked: Sequence[Query]) -> list[Expansion]:
        return [Expansion(q, Ranking(lists[q.id], np.zeros(len(lists[q.id]), np.float32))) for q in asked]

    classes = {"a": frozenset(range(6)), "b": frozenset({3, 6, 7}), "d": frozenset({10})}
    sentences = np.array([4, 0, 1, 4, 5, 9, 5, 80] + [50] * 192)
    measures = Measures(classes=classes, sentences=sentences)
    report = measure_into(Store.open(tmp_path), {}, answer, queries, measures)
    # Few (0 1 2 3 of a, 3 of b): in a-0 1 is expected and there, 2 there, 3 neither; in a-1 3 is expected and
    # there, 0 too, but too late, 2 neither; in b-0 3 neither. Others (4 5 of a, 6 7 of b): in a-0 5 is
    # expected; in a-1 4 neither; in b-0 7 is expected and there.
    assert report["confusion"] == [
        {"group": "5 sentences or more", "entities": 4, **outcomes(1 / 4, 0, 1 / 4, 1 / 4)},
        {"group": "fewer than 5 sentences", "entities": 5, **outcomes(3 / 5, 1 / 5, 1 / 5, 2 / 5)},
    ]
    before = {name: value for name, value in report.items() if name != "confusion"}
    assert with_confusion(before, Store.open(tmp_path), queries, measures) == report, "of an earlier version"
    assert confusion(Store.open(tmp_path), queries, Measures(classes=classes)) == []
    assert confusion(Store.open(tmp_path), queries, Measures(sentences=sentences)) == []
    page = markdown({"m": report}, "a page")
    assert "| fewer than 5 sentences | 5 | 0.60 | 0.20 | 0.20 | 0.40 |" in page


def outcomes(*numbers: float) -> dict[str, float]:
    return dict(zip(OUTCOMES, numbers, strict=True))


def test_a_stopped_evaluation_is_not_finished(tmp_path: Path) -> None:
    folder = Store.open(tmp_path)
    measure_into(folder, {}, run, QUERIES, Measures())
    assert finished(folder) is not None

    def fails(queries: Sequence[Query]) -> list[Expansion]:
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        measure_into(folder, {}, fails, QUERIES, Measures())
    assert finished(folder) is None


def test_more_queries_than_a_row_group(tmp_path: Path) -> None:
    queries = QuerySet([labelled(i) for i in range(GROUP_QUERIES + 1)])
    measure_into(Store.open(tmp_path), {}, run, queries, Measures())
    file = pq.ParquetFile(tmp_path / "queries.parquet")
    assert (file.num_row_groups, file.metadata.num_rows) == (2, GROUP_QUERIES + 1)


def test_negative_seeds_that_are_not_used_are_taken_off_the_answers(tmp_path: Path) -> None:
    asked: list[Query] = []

    def note(queries: Sequence[Query]) -> list[Expansion]:
        asked.extend(queries)
        ids = np.array([4, 3, 9, 12], np.int32)
        return [Expansion(q, Ranking(ids, np.zeros(4, np.float32))) for q in queries]

    report = measure_into(Store.open(tmp_path), {}, note, QUERIES, Measures(negative_seeds=1))
    assert {query.negative for query in asked} == {(3,)}
    assert min(query.top_k for query in asked) >= 101
    assert Scores.read(Store.open(tmp_path)).column("PosP@10")[0] == pytest.approx(50)
    rows = pq.read_table(tmp_path / "queries.parquet")["ranking"].to_pylist()
    assert rows[0] == [3, 9, 12], "3 is a seed that the method was told of: its list is its own affair"
    assert report["overall"]["queries"] == 4
