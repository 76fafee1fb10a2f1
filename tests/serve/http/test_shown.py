"""What of a ranking a request is shown: pages, a least score, entities that are kept out."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from engine.retrieval.opening import open_index
from serve.graph.bundle_snapshot import BundleSnapshot

ASKED = {"positive": [1, 2, 3], "negative": [4, 5], "top_k": 12}


def results(client: TestClient, **more: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/expand", json={**ASKED, **more})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["results"]
    return found


@pytest.mark.parametrize("explain", [False, True])
def test_pages_least_scores_and_the_excluded(client: TestClient, explain: bool) -> None:
    whole = results(client, explain=explain)
    assert results(client, explain=explain, offset=5, top_k=7) == whole[5:]
    assert results(client, explain=explain, min_score=whole[6]["score"]) == whole[:7]
    out = [whole[0]["name"], whole[2]["id"]]
    left = results(client, explain=explain, exclude=out, top_k=20)
    assert {whole[1]["id"]} <= {one["id"] for one in left}
    assert not {whole[0]["id"], whole[2]["id"]} & {one["id"] for one in left}


@pytest.mark.parametrize("explain", [False, True])
def test_few_of_a_group_and_unlike_ones(client: TestClient, explain: bool) -> None:
    plain = results(client, explain=explain)
    few = results(client, explain=explain, group_by="parity", per_group=2)
    assert [[one["id"] % 2 for one in few].count(odd) for odd in (0, 1)] == [2, 2]
    assert few[0] == plain[0]
    diverse = results(client, explain=explain, diversity=0.6)
    assert [one["id"] for one in diverse] != [one["id"] for one in plain]
    assert results(client, explain=explain, diversity=0.6, offset=4, top_k=8) == diverse[4:]


@pytest.mark.parametrize("explain", [False, True])
def test_facets_count_what_is_shown(client: TestClient, explain: bool) -> None:
    def facets(**more: Any) -> dict[str, Any]:
        body = {**ASKED, "explain": explain, **more}
        found: dict[str, Any] = client.post("/v1/expand", json=body).json()
        odd = sum(one["id"] % 2 for one in found["results"])
        counted = {one["value"]: one["count"] for one in found["facets"]["parity"]}
        assert counted == {k: n for k, n in (("odd", odd), ("even", len(found["results"]) - odd)) if n}
        return dict(found["facets"])

    whole = facets(facets=["parity"])["parity"]
    parts = [facets(facets=["parity"], offset=at, top_k=n)["parity"] for at, n in ((0, 5), (5, 7))]
    for one in whole:
        counts = [other["count"] for part in parts for other in part if other["value"] == one["value"]]
        assert one["count"] == sum(counts), "pages add up"
    assert set(facets(facets=True)) == {"class", "parity"}
    few = facets(facets=["parity"], group_by="parity", per_group=2)["parity"]
    assert [one["count"] for one in few] == [2, 2]
    odd = facets(facets=["parity"], filter={"parity": ["odd"]})["parity"]
    assert odd == [
        {"value": "odd", "count": 12, "entities": next(o["entities"] for o in whole if o["value"] == "odd")}
    ]
    assert "facets" not in client.post("/v1/expand", json=ASKED).json()


def test_pairs_are_of_methods_that_know_them(client: TestClient) -> None:
    pair = {"positive": 6, "negative": "entity 7"}
    error = client.post("/v1/expand", json={**ASKED, "context": [pair]}).json()["error"]
    assert (error["code"], error["field"]) == ("query", "method")
    assert "Retrieve cannot obey context pairs" in error["message"]


def test_seeds_have_weights_and_the_weight_0_is_absence(client: TestClient) -> None:
    plain = results(client)
    nobody = {"name": "Thule", "sentences": ["Thule is far."], "weight": 0}
    assert results(client, positive=[1, 2, {"name": "entity 9", "weight": 0}, 3, nobody]) == plain
    assert results(client, positive=[1, 2, {"id": 3, "weight": 4}]) != plain
    alone = results(client, positive=[])
    assert [one["score"] for one in alone] == [-one["evidence"]["negative"] for one in alone]
    asked = {"positive": [1, {"id": 2, "weight": 4}], "method": "genexpan"}
    error = client.post("/v1/expand", json=asked).json()["error"]
    assert (error["code"], error["field"]) == ("query", "method")
    assert "method 'genexpan': Generate cannot weigh seeds" in error["message"]


@pytest.mark.parametrize("explain", [False, True])
def test_a_vector_is_a_seed(client: TestClient, snapshot: BundleSnapshot, explain: bool) -> None:
    mask = open_index(snapshot.bundle, "mask").vectors_of([3])[0]
    given = {"vector": {"mask": (3 * mask).tolist()}}
    known = results(client, explain=explain)
    found = results(client, positive=[1, 2, given], exclude=[3], explain=explain)
    assert [one["id"] for one in found] == [one["id"] for one in known]
    assert [one["score"] for one in found] == pytest.approx([one["score"] for one in known], abs=1e-5)
    if explain:
        names = [
            (o["explanation"]["nearest_positive"]["id"], o["explanation"]["nearest_positive"]["name"])
            for o in found
        ]
        assert (None, "positive.2") in names
    for wrong, words in (
        (
            {"positive": [{"vector": {"mask": [1, 2]}}]},
            "positive.0: a vector of the view 'mask' has 16 numbers",
        ),
        ({"positive": [given], "method": "genexpan"}, "Generate needs more of a seed than vectors"),
        ({"positive": [{"vector": {"mask": [0] * 16}}]}, "all numbers are 0"),
    ):
        answer = client.post("/v1/expand", json={**ASKED, **wrong})
        assert answer.status_code == 422
        assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("more", "field", "words"),
    [
        ({"positive": [{"id": 1, "weight": "2"}]}, "positive.0.weight", "valid number"),
        ({"positive": [{"weight": 2}]}, "positive.0", "give a name or an id"),
        (
            {"positive": [], "negative": [], "id": "q"},
            "positive",
            "give at least one positive seed, or a negative one",
        ),
        ({"positive": [], "method": "genexpan"}, "method", "Generate needs a positive seed"),
        ({"group_by": "colour"}, "group_by.colour", "no entity has attribute 'colour'"),
        ({"facets": ["parity", "colour"]}, "facets.colour", "no entity has attribute 'colour'"),
        ({"facets": "parity"}, "facets", "facets are a list of attributes, or true"),
        ({"facets": ["a"] * 33}, "facets", "at most 32"),
        ({"diversity": 1.5}, "diversity", "less than or equal to 1"),
        ({"context": [{"positive": 6}]}, "context.0.negative", "Field required"),
        ({"context": [{"positive": "entty 6", "negative": 1}]}, "context.0.positive", "did you mean"),
        ({"context": [{"positive": 6, "negative": 7}] * 101}, "context", "at most 100"),
        ({"offset": -1}, "offset", "greater than or equal to 0"),
        ({"offset": 9999}, "offset", "and a top_k of 12 are together more than"),
        ({"min_score": "1"}, "min_score", "valid number"),
        ({"exclude": ["entity 1", "entty 2"]}, "exclude.1", "unknown entity 'entty 2'; did you mean"),
        (
            {"exclude": [{"name": "x", "sentences": ["x"]}]},
            "exclude.0",
            "an entity is a name or an entity id",
        ),
        ({"exclude": list(range(10_001))}, "exclude", "at most 10000"),
    ],
)
def test_what_cannot_be_is_422_with_the_field(client: TestClient, more: Any, field: str, words: str) -> None:
    answer = client.post("/v1/expand", json={**ASKED, **more})
    error = answer.json()["error"]
    assert (answer.status_code, error["field"]) == (422, field)
    assert words in error["message"]
