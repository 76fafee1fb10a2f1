"""A row of a table is a request: read from a file, it is the query that it is over HTTP."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.queries.formats import read_queries
from engine.storage.store import Store
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.errors import Problem
from serve.http.requests import ExpandRequest
from serve.http.resolve import Arrival, resolve_query
from serve.settings import ServeSettings

NEW = {"name": "Thule", "sentences": ["Thule is far.", "Who has seen Thule?"]}
OTHER = {"name": "Atlantis", "sentences": ["Atlantis sank."]}
SEEDS = st.one_of(st.sampled_from(["entity 1", "entity 2", "ENTITY 3"]), st.integers(4, 9))
ROWS = st.fixed_dictionaries(
    {"positive": st.lists(SEEDS, min_size=1, max_size=4).map(lambda seeds: [*seeds, NEW])},
    optional={
        "negative": st.lists(st.integers(10, 20), max_size=3).map(lambda seeds: [OTHER, *seeds]),
        "top_k": st.integers(1, 300),
        "filter": st.dictionaries(
            st.just("parity"), st.lists(st.sampled_from(["even", "odd"]), min_size=1), min_size=1
        ),
        "positive_attributes": st.just({"class": ["rare"]}),
        "options": st.just({"SegmentRerank.length": 8}),
    },
)


@settings(max_examples=40)
@given(ROWS)
def test_a_row_is_the_query_that_it_is_over_http(snapshot: BundleSnapshot, row: dict[str, Any]) -> None:
    asked = ExpandRequest.model_validate({"top_k": 200} | row | {"id": "q", "class_name": "things"})
    found = resolve_query(asked, snapshot, ServeSettings(workspace="w"), Arrival())
    assert not isinstance(found, Problem), found
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "q.jsonl"
        file.write_text(json.dumps(row | {"id": "q", "class": "things"}))
        read = read_queries(Store.open(file), snapshot.vocabulary, lambda: snapshot.catalogue)
    assert not read.refused
    assert read.queries[0].query == replace(found.query, deadline=None)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"filter": {"partiy": ["even"]}}, "no entity has attribute 'partiy'; did you mean 'parity'"),
        ({"filter": {"parity": ["evn"]}}, "'evn'; did you mean 'even'"),
        ({"filter": {"parity": []}}, "filter.parity: List should have at least 1 item"),
        ({"filter": ["even"]}, "filter: Input should be a valid dictionary"),
        ({"positive": [{"name": "entity 1", "sentences": ["entity 1."]}]}, "is in the vocabulary"),
        ({"positive": [NEW], "negative": [NEW]}, "the new entity 'Thule' is given twice"),
        ({"positive": [{"name": "Thule", "sentences": ["Atlantis sank."]}]}, "does not hold"),
        ({"positive": [{"name": "Thule", "sentence": "Thule."}]}, "positive.0"),
        ({"positive": [1.5]}, "positive.0: a seed is a name, an entity id, or an object"),
    ],
)
def test_a_row_that_cannot_be_asked_is_refused(
    snapshot: BundleSnapshot, tmp_path: Path, row: dict[str, Any], reason: str
) -> None:
    file = tmp_path / "q.jsonl"
    rows = [{"id": "good", "positive": [3]}, {"id": "bad", "positive": [1]} | row]
    file.write_text("\n".join(map(json.dumps, rows)))
    read = read_queries(Store.open(file), snapshot.vocabulary, lambda: snapshot.catalogue)
    assert [one.query.id for one in read.queries] == ["good"]
    assert reason in read.refused[0].reason
