"""Test the reconciliation protocol against a declaration of its own of what version 0.2 says of each body."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft7Validator, Draft202012Validator
from jsonschema import ValidationError as SchemaError

from serve.http.reconciliation_shapes import MAX_CANDIDATES, MAX_IDS
from serve.http.routes import create_app
from tests.support.bundles import method_bundle
from tests.support.services import MakeClient, open_snapshot, service_maker

COUNTRIES = {
    "Japan": "Asia",
    "Thailand": "Asia",
    "Saudi Arabia": "Asia",
    "Morocco": "Africa",
    "<b>&": "Africa",
}

TEXT: dict[str, Any] = {"type": "string"}


def closed(needed: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The schema of an object with these keys, those of ``needed`` always."""
    return {
        "type": "object",
        "properties": needed | more,
        "required": list(needed),
        "additionalProperties": False,
    }


def list_of(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


NAMED = {"id": TEXT, "name": TEXT}
FEATURE = closed({"id": TEXT, "value": {"type": ["boolean", "number"]}})
CANDIDATE = closed(
    NAMED | {"score": {"type": "number", "minimum": 0, "maximum": 100}},
    match={"type": "boolean"},
    description=TEXT,
    features=list_of(FEATURE),
    type=list_of(closed(NAMED)),
)
BATCH = {"type": "object", "additionalProperties": closed({"result": list_of(CANDIDATE)})}
SUGGESTED = closed({"result": list_of(closed(NAMED, description=TEXT))})
CELL = {"oneOf": [closed({}), closed({"str": TEXT}), closed(NAMED)]}
EXTENDED = closed(
    {
        "meta": list_of(closed(NAMED)),
        "rows": {
            "type": "object",
            "additionalProperties": {"type": "object", "additionalProperties": list_of(CELL)},
        },
    }
)
PROPOSED = closed({"properties": list_of(closed(NAMED))}, type=TEXT, limit={"type": "number"})
PLACE = closed({"service_url": TEXT, "service_path": TEXT}, flyout_service_path={"pattern": r"\$\{id\}"})
WITH_ID = {"type": "string", "pattern": r"^https?://.*\{\{id\}\}"}
PIXELS = {"type": "integer", "minimum": 1}
MANIFEST = closed(
    {
        "versions": {"const": ["0.2"]},
        "name": TEXT,
        "identifierSpace": {"type": "string", "pattern": "^https?://"},
        "schemaSpace": {"type": "string", "pattern": "^https?://"},
        "view": closed({"url": WITH_ID}),
        "preview": closed({"url": WITH_ID, "width": PIXELS, "height": PIXELS}),
        "suggest": closed(dict.fromkeys(("entity", "property", "type"), PLACE)),
        "extend": closed(
            {
                "propose_properties": PLACE,
                "property_settings": list_of(
                    closed({"name": TEXT, "label": TEXT, "type": {"const": "number"}}, help_text=TEXT)
                ),
            }
        ),
    },
    authentication=closed({"type": {"const": "apiKey"}, "name": TEXT, "in": {"const": "header"}}),
)


OFFICIAL = os.environ.get("SEEDSET_TEST_RECONCILIATION")
"""A folder `0.2` of the specification's own repository, with `schemas` and `examples`. Where it is named,
bodies are held against these schemas, too: no package has them."""

NAMES = {
    id(MANIFEST): ("manifest",),
    id(BATCH): ("reconciliation-result-batch",),
    id(EXTENDED): ("data-extension-response",),
    id(PROPOSED): ("data-extension-property-proposal",),
    id(SUGGESTED): ("suggest-entities-response", "suggest-properties-response", "suggest-types-response"),
}
"""The files of the specification for ours."""


def of_schema(schema: dict[str, Any], body: Any) -> Any:
    """Return a body that the schema holds for."""
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema).validate(body)
    if OFFICIAL is not None:
        for name in NAMES.get(id(schema), ()):
            official(name).validate(body)
    return body


@cache
def official(name: str) -> Draft7Validator:
    """A schema of the specification. Of what it refers to elsewhere, of Swagger, nothing is known here."""
    folder = Path(str(OFFICIAL)) / "schemas"
    others = {"type.json": json.loads((folder / "type.json").read_text())}

    def resolved(part: Any) -> Any:
        if isinstance(part, list):
            return [resolved(one) for one in part]
        if not isinstance(part, dict):
            return part
        reference = part.get("$ref", "#")
        if not reference.startswith("#"):
            return others.get(reference, {})
        return {key: resolved(value) for key, value in part.items()}

    return Draft7Validator(resolved(json.loads((folder / f"{name}.json").read_text())))


@pytest.fixture(scope="module")
def countries(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    root: Path = tmp_path_factory.mktemp("countries")
    attributes = [{"continent": [place], "class": ["country"]} for place in COUNTRIES.values()]
    bundle = method_bundle(root, names=list(COUNTRIES), attributes=attributes)
    app = create_app(service_maker(open_snapshot(bundle), bundle)(allowed_origins=["http://127.0.0.1:3333"]))
    return TestClient(app, raise_server_exceptions=False)


def ask(client: TestClient, **queries: object) -> dict[str, list[dict[str, Any]]]:
    """Return the candidates of each query, which both ways to ask must agree on."""
    text = json.dumps(queries)
    posted = client.post("/v1/reconcile", data={"queries": text})
    assert posted.status_code == 200, posted.text
    assert client.get("/v1/reconcile", params={"queries": text}).json() == posted.json()
    return {key: one["result"] for key, one in of_schema(BATCH, posted.json()).items()}


def test_the_manifest_says_where_everything_is(countries: TestClient, make_client: MakeClient) -> None:
    manifest = of_schema(MANIFEST, countries.get("/v1/reconcile").json())
    for kind, place in manifest["suggest"].items():
        answer = countries.get(place["service_url"] + place["service_path"], params={"prefix": "a"})
        assert answer.status_code == 200, kind
    proposing = manifest["extend"]["propose_properties"]
    assert countries.get(proposing["service_url"] + proposing["service_path"]).status_code == 200
    assert countries.get(manifest["view"]["url"].replace("{{id}}", "Japan")).status_code == 200
    flyout = manifest["suggest"]["entity"]["flyout_service_path"].replace("${id}", "Japan")
    of_schema(closed({"id": TEXT, "html": TEXT}), countries.get(flyout).json())
    digest = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"  # sha256 of "test"
    guarded = make_client(tokens={"page": digest})
    assert guarded.get("/v1/reconcile").status_code == 401
    told = guarded.get("/v1/reconcile", headers={"Authorization": "Bearer test"}).json()
    assert of_schema(MANIFEST, told)["authentication"]["name"] == "Authorization"


def test_a_column_of_names_becomes_entities(countries: TestClient) -> None:
    found = ask(
        countries,
        sure={"query": "japan"},
        misspelt={"query": "Thialand"},
        part={"query": "arabia"},
        nothing={"query": "Qwertzuiop"},
        long={"query": "Japan " * 400},
        most={"query": "a", "limit": 1},
    )
    assert [(one["id"], one["score"], one["match"]) for one in found["sure"]] == [("Japan", 100, True)]
    (misspelt,) = found["misspelt"]
    # One swap of eight letters.
    assert (misspelt["id"], misspelt["score"], misspelt["match"]) == ("Thailand", 87.5, False)
    assert [(one["id"], one["score"]) for one in found["part"]] == [("Saudi Arabia", 50)]
    assert found["nothing"] == found["long"] == []
    assert len(found["most"]) == 1


def test_properties_and_types_count(countries: TestClient) -> None:
    asia = {"pid": "continent", "v": ["asia", 7]}
    africa = {"pid": "continent", "v": {"id": "x", "name": "Africa"}}
    found = ask(
        countries,
        right={"query": "Japan", "properties": [asia]},
        wrong={"query": "Japan", "properties": [africa]},
        alone={"properties": [{"pid": "continent", "v": "Africa"}]},
        unknown={"properties": [{"pid": "colour", "v": True}]},
        of_type={"query": "Japan", "type": "country"},
        of_none={"query": "Japan", "type": ["planet"]},
        all_types={"query": "Japan", "type": ["country", "planet"], "type_strict": "all"},
        should={"query": "Japan", "type": ["planet"], "type_strict": "should"},
    )
    assert (found["right"][0]["score"], found["right"][0]["match"]) == (100, True)
    # The name counts 2, the property 1.
    assert (found["wrong"][0]["score"], found["wrong"][0]["match"]) == (66.67, False)
    assert {"id": "continent", "value": False} in found["wrong"][0]["features"]
    assert {one["id"] for one in found["alone"]} == {"Morocco", "<b>&"}
    assert not any(one["match"] for one in found["alone"])
    assert found["of_type"][0]["type"] == [{"id": "country", "name": "country"}]
    assert found["of_type"][0]["match"]
    assert found["of_none"] == found["all_types"] == found["unknown"] == []
    assert (found["should"][0]["score"], found["should"][0]["match"]) == (66.67, False)


def test_attributes_become_columns(countries: TestClient) -> None:
    wanted = [{"id": "continent"}, {"id": "description", "settings": {"limit": 1}}, {"id": "aliases"}]
    text = json.dumps({"ids": ["Japan", "Atlantis"], "properties": wanted})
    answer = countries.post("/v1/reconcile", data={"extend": text}).json()
    rows = of_schema(EXTENDED, answer)["rows"]
    assert rows["Japan"]["continent"] == [{"str": "Asia"}]
    assert rows["Japan"]["description"] == [{"str": "The even one of number 0."}]
    assert rows["Atlantis"] == {"continent": [], "description": [], "aliases": []}
    assert [one["id"] for one in answer["meta"]] == ["continent", "description", "aliases"]
    proposed = of_schema(PROPOSED, countries.get("/v1/reconcile/properties", params={"limit": 3}).json())
    assert [one["id"] for one in proposed["properties"]] == ["class", "continent", "aliases"]


def test_what_is_typed_is_completed(countries: TestClient) -> None:
    def suggested(kind: str, **params: object) -> list[str]:
        answer = countries.get(f"/v1/reconcile/suggest/{kind}", params=params)  # type: ignore[arg-type]
        return [one["id"] for one in of_schema(SUGGESTED, answer.json())["result"]]

    assert suggested("entity", prefix="jap") == suggested("entity", prefix="Jpaan") == ["Japan"]
    assert suggested("entity") == []
    assert suggested("property", prefix="CONT") == ["continent"]
    assert suggested("property", cursor=1) == suggested("property")[1:]
    assert suggested("type") == ["country"]
    # Clients send more than the protocol names.
    assert suggested("entity", prefix="jap", lang="en", callback="x") == ["Japan"]


def test_a_preview_is_safe_and_may_be_framed_by_allowed_origins_alone(
    countries: TestClient, client: TestClient
) -> None:
    shown = countries.get("/v1/reconcile/preview", params={"id": "<b>&"})
    assert "&lt;b&gt;&amp;" in shown.text
    assert "<b>" not in shown.text
    policies = shown.headers.get_list("content-security-policy")
    assert policies == ["default-src 'none'; frame-ancestors http://127.0.0.1:3333"]
    own = client.get("/v1/reconcile/preview", params={"id": "entity 7"})
    assert own.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    missing = countries.get("/v1/reconcile/preview", params={"id": "Atlantis"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_entity")


@pytest.mark.parametrize(
    ("form", "status", "field"),
    [
        ({}, 422, "queries"),
        ({"queries": "{"}, 400, "queries"),
        ({"queries": "[]"}, 422, "queries"),
        ({"queries": "{}"}, 422, "queries"),
        ({"queries": json.dumps({f"q{i}": {"query": "a"} for i in range(257)})}, 422, "queries"),
        ({"queries": '{"q0": {"query": "a"}, "q1": {}}'}, 422, "queries.q1"),
        ({"queries": '{"q0": "Japan"}'}, 422, "queries.q0"),
        ({"queries": '{"q0": {"query": "a", "limits": 1}}'}, 422, "queries.q0.limits"),
        ({"queries": json.dumps({"q": {"query": "a", "limit": MAX_CANDIDATES + 1}})}, 422, "queries.q.limit"),
        ({"queries": '{"q0": {"query": "a"}}', "extend": "{}"}, 422, "extend"),
        ({"extend": '{"ids": ["Japan"]}'}, 422, "extend.properties"),
        ({"extend": json.dumps({"ids": ["x"] * (MAX_IDS + 1), "properties": []})}, 422, "extend.ids"),
        ({"extend": '{"ids": [], "properties": [{"id": "colour"}]}'}, 422, "extend.properties.0.id"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    countries: TestClient, form: dict[str, str], status: int, field: str
) -> None:
    answer = countries.post("/v1/reconcile", data=form or {"lang": "en"})
    assert (answer.status_code, answer.json()["error"]["field"]) == (status, field), answer.text


@pytest.mark.skipif(OFFICIAL is None, reason="SEEDSET_TEST_RECONCILIATION names no specification")
def test_the_examples_of_the_specification_are_answered(countries: TestClient) -> None:
    folder = Path(str(OFFICIAL)) / "examples"
    answered = 0
    for file in sorted((folder / "reconciliation-query-batch").rglob("*.json")):
        answer = countries.post("/v1/reconcile", data={"queries": file.read_text()})
        assert answer.status_code == (200 if file.parent.name == "valid" else 422), f"{file}: {answer.text}"
        if answer.status_code == 200:
            of_schema(BATCH, answer.json())
            answered += 1
    assert answered >= 4
    with pytest.raises(SchemaError):
        official("manifest").validate({"name": "no versions"})


def test_only_a_form_is_read(countries: TestClient) -> None:
    assert countries.post("/v1/reconcile", json={"queries": {}}).status_code == 422
    content, kind = b"queries=%ff", {"content-type": "application/x-www-form-urlencoded"}
    wrong = countries.post("/v1/reconcile", content=content, headers=kind)
    assert (wrong.status_code, bool(re.search("UTF-8", wrong.text))) == (422, True)


def test_names_that_are_searched_for_count_as_queries(make_client: MakeClient) -> None:
    client = make_client(rate_per_minute=1, burst=2)
    known = {f"q{i}": {"query": f"entity {i}"} for i in range(9)}
    for _ in range(3):
        assert client.post("/v1/reconcile", data={"queries": json.dumps(known)}).status_code == 200
    unknown = {f"q{i}": {"query": f"entty {i}"} for i in range(3)}
    assert client.post("/v1/reconcile", data={"queries": json.dumps(unknown)}).status_code == 200
    refused = client.post("/v1/reconcile", data={"queries": json.dumps(unknown)})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limited")
