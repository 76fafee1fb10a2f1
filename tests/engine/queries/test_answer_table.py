"""The table of answers, against one that is made row by row."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalogue.entities import Facets
from engine.queries import answer_table
from engine.queries.answer_table import SCHEMA, Labels, Result, to_table
from engine.queries.formats import RefusedQuery
from engine.query import Expansion, Query, Ranking, Selection
from engine.refusals import Code, Refusal

LABELS = Labels(
    pa.array(["a", "b", "c"]), pa.array([["a.png"], [], ["c.png", "s3://b/c.jpg"]], pa.list_(pa.string()))
)
REFUSED = RefusedQuery("q.json", 3, "q", Refusal(Code.WORKER_DIED, "died"))
FACETS: Facets = {"colour": [{"value": "red", "count": 2, "entities": 9}], "size": []}
EXPLAINED = {
    "nearest_positive": {"id": 1, "name": "b", "similarity": 0.5},
    "nearest_negative": None,
    "sentences": [{"text": "b is", "start": 0, "end": 1}],
    "types": {"shared": ["x"], "positive": [], "negative": []},
}


def expansion(name: str, ids: list[int], degraded: tuple[str, ...] = ()) -> Expansion:
    scores = np.linspace(1, 0, len(ids), dtype=np.float32)
    ranking = Ranking(np.array(ids, np.int32), scores, {"x": scores / np.float32(3), "y": scores * 0})
    return Expansion(Query(name, (0,)), ranking, {}, degraded, {"class_name": f"class of {name}"})


def plain_rows(result: Result) -> list[dict[str, Any]]:
    """Return a query's rows, one after the other, by what the schema says of each column."""
    found, refusal = result.expansion, result.refusal
    ranking = found.ranking if refusal is None else Ranking.empty()
    of_query = {
        "query_id": found.query.id,
        "degraded": list(found.degraded) if refusal is None else [refusal.reason],
        "reasoning": list(found.reasoning.items()),
        "counts": list(found.counts.items()),
    }
    nothing = dict.fromkeys(("entity_id", "name", "score", "evidence", "explanation"))
    rows = [
        {
            **of_query,
            "rank": found.query.selection.offset + place + 1,
            "entity_id": int(entity),
            "name": LABELS.names[int(entity)].as_py(),
            "score": float(ranking.scores[place]),
            "evidence": [(name, float(column[place])) for name, column in ranking.evidence.items()],
            "images": LABELS.images[int(entity)].as_py(),
            "explanation": result.explained[place] if result.explained else None,
            "facets": None,
        }
        for place, entity in enumerate(ranking.ids)
    ] or [{**of_query, **nothing, "rank": 0, "images": [], "facets": None}]
    if refusal is None and result.facets is not None:
        rows[0]["facets"] = list(result.facets.items())
    return rows


@st.composite
def results(draw: st.DrawFn) -> Result:
    ids = draw(st.lists(st.integers(0, 2), max_size=3, unique=True))
    number = st.floats(-9, 9, width=32)
    column = st.lists(number, min_size=len(ids), max_size=len(ids)).map(lambda own: np.array(own, np.float32))
    evidence = draw(st.dictionaries(st.sampled_from("xyz"), column, max_size=3))
    selection = Selection(offset=draw(st.integers(0, 3)))
    found = Expansion(
        Query(draw(st.text("pqr", max_size=2)), (0,), selection=selection),
        Ranking(np.array(ids, np.int32), draw(column), evidence),
        {},
        tuple(draw(st.lists(st.just("left out"), max_size=2))),
        draw(st.dictionaries(st.sampled_from(["class_name", "positive"]), st.text("ab"), max_size=2)),
        draw(st.dictionaries(st.sampled_from("mn"), st.integers(0, 5), max_size=2)),
    )
    explained = draw(
        st.none() | st.lists(st.sampled_from([EXPLAINED, None]), min_size=len(ids), max_size=len(ids))
    )
    return Result(
        found, draw(st.sampled_from([None, REFUSED])), explained, draw(st.sampled_from([None, {}, FACETS]))
    )


@settings(max_examples=60)
@given(st.lists(results(), max_size=5), st.sampled_from([1, 4, answer_table.PIECE_ROWS]))
def test_the_table_is_the_one_made_row_by_row(given: list[Result], piece_rows: int) -> None:
    with patch.object(answer_table, "PIECE_ROWS", piece_rows):
        table = to_table(given, LABELS)
    table.validate(full=True)
    plain = pa.Table.from_pylist([row for one in given for row in plain_rows(one)], schema=SCHEMA)
    assert table.schema == SCHEMA
    assert table.to_pylist() == plain.to_pylist()


def test_many_queries_are_one_piece_and_long_answers_several() -> None:
    many = [Result(expansion(str(number), [0, 1])) for number in range(50)]
    assert to_table(many, LABELS)["name"].num_chunks == 1
    with patch.object(answer_table, "PIECE_ROWS", 40):
        assert [len(chunk) for chunk in to_table(many, LABELS)["name"].chunks] == [40, 40, 20]


def test_table_holds_ranks_names_and_evidence_exactly():
    one = expansion("q", [2, 1])
    table = to_table([Result(one)], LABELS)
    assert table.schema == SCHEMA
    rows = table.to_pylist()
    assert [(r["rank"], r["entity_id"], r["name"]) for r in rows] == [(1, 2, "c"), (2, 1, "b")]
    assert [r["images"] for r in rows] == [["c.png", "s3://b/c.jpg"], []]
    assert [np.float32(r["score"]) for r in rows] == one.ranking.scores.tolist()
    assert dict(rows[0]["evidence"]) == {"x": float(np.float32(1) / 3), "y": 0}
    assert [dict(r["reasoning"]) for r in rows] == [{"class_name": "class of q"}] * 2
    (nothing,) = to_table([Result(expansion("e", []))], LABELS).to_pylist()
    assert (nothing["rank"], nothing["reasoning"]) == (0, [("class_name", "class of e")])
    assert to_table([], LABELS).schema == SCHEMA


def test_a_query_without_answers_has_one_row_that_says_so():
    table = to_table(
        [Result(expansion("q", [], ("no seed has a sentence",))), Result(expansion("r", [1]))], LABELS
    )
    first, second = table.to_pylist()
    assert (first["query_id"], first["rank"], first["entity_id"]) == ("q", 0, None)
    assert first["degraded"] == ["no seed has a sentence"]
    assert (second["query_id"], second["rank"]) == ("r", 1)


def test_facets_are_in_the_first_row_of_a_query() -> None:
    facets: Facets = {"colour": [{"value": "red", "count": 2, "entities": 9}], "size": []}
    some, none = Result(expansion("q", [1, 2]), facets=facets), Result(expansion("r", []), facets={})
    rows = to_table([some, Result(expansion("s", [1])), none], LABELS).to_pylist(maps_as_pydicts="strict")
    assert [row["facets"] for row in rows] == [facets, None, None, {}]


def test_evidence_may_be_missing():
    one = Expansion(Query("q", (0,)), Ranking(np.array([1], np.int32), np.ones(1, np.float32)))
    assert to_table([Result(one)], LABELS).to_pylist()[0]["evidence"] == []
