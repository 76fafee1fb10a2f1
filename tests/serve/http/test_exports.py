"""Test sets as files over HTTP: the answer of a query, and names that were chosen."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient
from rdflib import Graph
from rdflib.namespace import RDF, SKOS

from engine.query import Expansion
from engine.storage.bundle import Bundle
from serve.telemetry.metrics import Metrics
from tests.support.services import LocalDispatch, MakeClient

QUERY = {"positive": ["entity 1", "entity 2"], "top_k": 5}


class Proposing(LocalDispatch):
    """Stages that propose the first two, and lack something."""

    async def __call__(self, *given, **named):
        found = await super().__call__(*given, **named)
        expansions = [one for one in found if isinstance(one, Expansion)]
        return [replace(one, counts={"proposed": 2}, degraded=("Rerank: über",)) for one in expansions]


@pytest.fixture(scope="module")
def proposing(make_client: MakeClient, bundle: Bundle) -> TestClient:
    return make_client(Proposing(bundle, Metrics()))


def test_an_answer_is_a_table_of_the_same_entities(client: TestClient) -> None:
    results = client.post("/v1/expand", json=QUERY).json()["results"]
    file = client.post("/v1/expand/export", params={"format": "csv"}, json=QUERY)
    assert file.headers["content-type"] == "text/csv; charset=utf-8"
    assert file.headers["content-disposition"] == 'attachment; filename="set.csv"'
    assert "x-degraded" not in file.headers
    rows = list(csv.DictReader(io.StringIO(file.content.decode("utf-8-sig"))))
    assert [row["name"] for row in rows] == [one["name"] for one in results]
    assert [float(row["score"]) for row in rows] == [one["score"] for one in results]
    assert json.loads(rows[0]["attributes"]).keys() == {"class", "parity"}


def test_the_proposed_set_alone_and_what_it_lacks(client: TestClient, proposing: TestClient) -> None:
    params = {"format": "jsonl", "proposed": "true"}
    file = proposing.post("/v1/expand/export", params=params, json=QUERY)
    assert [json.loads(line)["rank"] for line in file.text.splitlines()] == [1, 2]
    assert file.headers["x-degraded"] == "Rerank: ?ber"
    refused = client.post("/v1/expand/export", params=params, json=QUERY)
    assert (refused.status_code, refused.json()["error"]["field"]) == (422, "proposed")


def test_chosen_names_are_a_scheme_whose_addresses_are_entities(client: TestClient) -> None:
    params = {"format": "skos", "label": "odd ones"}
    names = {"names": ["entity 3", "ENTITY 5", "entity 3"]}
    file = client.post("/v1/entities/export", params=params, json=names)
    assert file.headers["content-type"] == "text/turtle; charset=utf-8"
    graph = Graph().parse(data=file.text, format="turtle")
    concepts = sorted(graph.subjects(RDF.type, SKOS.Concept), key=str)
    assert [str(graph.value(one, SKOS.prefLabel)) for one in concepts] == ["entity 3", "entity 5"]
    assert client.get(str(concepts[0])).json()["name"] == "entity 3"


def test_patterns_carry_the_sets_name(client: TestClient) -> None:
    params = {"format": "patterns", "label": "odd"}
    file = client.post("/v1/entities/export", params=params, json={"names": ["entity 3"]})
    assert json.loads(file.text) == {"label": "odd", "pattern": [{"lower": "entity"}, {"lower": "3"}]}


@pytest.mark.parametrize(
    ("params", "names", "field"),
    [
        ({}, ["entity 3"], "format"),
        ({"format": "xlsx"}, ["entity 3"], "format"),
        ({"format": "csv", "lable": "x"}, ["entity 3"], "lable"),
        ({"format": "csv"}, ["entity 3", "entty 3"], "names.1"),
        ({"format": "csv"}, [], "names"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    client: TestClient, params: dict[str, str], names: list[str], field: str
) -> None:
    answer = client.post("/v1/entities/export", params=params, json={"names": names})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, field), answer.text
