"""Named sets over HTTP: names and ids of a bundle, conflicts, undo, export and import."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from serve.http.routes import create_app
from serve.sets.access import LocalSets, sets_file
from serve.settings import ServeSettings
from tests.support.services import MakeService

Json = dict[str, Any]
MakeSets = Callable[..., TestClient]


@pytest.fixture
def sets_client(make_service: MakeService, tmp_path: Path) -> MakeSets:
    def make(file: str = "sets.sqlite", **settings: object) -> TestClient:
        return TestClient(create_app(make_service(**settings), sets=LocalSets(tmp_path / file)))

    return make


def created(client: TestClient, name: str = "s", **given: object) -> Json:
    answer = client.post("/v1/sets", json={"name": name, **given})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def changed(client: TestClient, given: Json, change: Json, **more: object) -> Json:
    answer = client.post(
        f"/v1/sets/{given['id']}/events", json={"version": given["version"], "change": change, **more}
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_set_is_made_judged_undone_and_read(sets_client: MakeSets) -> None:
    client = sets_client()
    made = created(client, "evens", question={"positive": ["entity 2"], "top_k": 5}, by="ada")
    assert made["question"] == {"positive": ["entity 2"], "top_k": 5}
    judged = {"kind": "judge", "accept": ["entity 2", "entity 4"], "reject": ["entity 3"]}
    done = changed(client, made, judged, by="bob", note="numbers")
    assert (done["version"], done["written"], done["counts"]) == (2, 2, {"accepted": 2, "rejected": 1})
    found = client.get(f"/v1/sets/{made['id']}").json()
    first = found["accepted"][0]
    assert (first["name"], first["id"], first["saved_id"]) == ("entity 2", 2, 2)
    assert (first["by"], first["note"], first["saved_bundle"]) == ("bob", "numbers", found["bundle"])
    done = changed(client, done, {"kind": "undo", "undo": done["undo"]})
    assert (done["counts"], done["redo"]) == ({"accepted": 0, "rejected": 0}, 3)
    done = changed(client, done, {"kind": "rename", "name": "even numbers"})
    done = changed(client, done, {"kind": "ask", "question": {"positive": [4]}})
    history = client.get(f"/v1/sets/{made['id']}/events", params={"after": 1}).json()
    assert [e["change"]["kind"] for e in history["events"]] == ["judge", "undo", "rename", "ask"]
    assert [e["undone"] for e in history["events"]] == [True, False, False, False]
    (listed,) = client.get("/v1/sets").json()["sets"]
    assert (listed["name"], listed["version"]) == ("even numbers", 5)


def test_of_two_curators_the_later_is_told_and_both_changes_stay(sets_client: MakeSets) -> None:
    client = sets_client()
    made = created(client)
    changed(client, made, {"kind": "judge", "accept": ["entity 1"]}, by="ada")
    path = f"/v1/sets/{made['id']}/events"
    mine: Json = {"version": 1, "change": {"kind": "judge", "accept": ["entity 2"]}, "by": "bob", "id": "k"}
    refused = client.post(path, json=mine)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["field"]) == (409, "set_conflict", "version")
    assert error["suggestions"] == ["2"], "the newer version"
    (newer,) = client.get(path, params={"after": 1}).json()["events"]
    assert newer["by"] == "ada"
    for _ in range(2):  # the second time, as if the first answer had been lost
        assert client.post(path, json={**mine, "version": 2}).json()["version"] == 3
    found = client.get(f"/v1/sets/{made['id']}").json()
    assert [one["name"] for one in found["accepted"]] == ["entity 1", "entity 2"]


def test_a_set_outlives_its_bundle_and_shows_what_is_gone(make_service: MakeService, tmp_path: Path) -> None:
    service = make_service()
    client = TestClient(create_app(service, sets=LocalSets(tmp_path / "sets.sqlite")))
    made = created(client)
    changed(client, made, {"kind": "judge", "accept": ["entity 1", "entity 2"]})
    vocabulary = service.snapshot.vocabulary
    names = [name if name != "entity 1" else "entity one" for name in vocabulary.names]
    other = type(vocabulary)(names, [[] for _ in names])
    service.snapshot = replace(service.snapshot, vocabulary=other)
    found = client.get(f"/v1/sets/{made['id']}").json()
    assert [(one["name"], one["id"], one["saved_id"]) for one in found["accepted"]] == [
        ("entity 1", None, 1),
        ("entity 2", 2, 2),
    ]
    done = changed(client, found, {"kind": "judge", "reject": ["entity 1"]})
    assert done["counts"] == {"accepted": 1, "rejected": 1}


def test_an_unknown_name_is_refused_with_what_is_like_it(sets_client: MakeSets) -> None:
    client = sets_client()
    made = created(client)
    for side in ("accept", "reject"):
        body = {"version": 1, "change": {"kind": "judge", side: ["entity 1", "entty 2"]}}
        answer = client.post(f"/v1/sets/{made['id']}/events", json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["field"]) == (
            422,
            "unknown_entity",
            f"change.{side}.1",
        )
        assert "entity 2" in error["suggestions"]
    body = {"version": 1, "change": {"kind": "judge", "accept": ["entity 1"], "reject": ["entity 1"]}}
    error = client.post(f"/v1/sets/{made['id']}/events", json=body).json()["error"]
    assert error["field"] == "change.reject.0"


def test_an_export_is_imported_with_its_history_and_a_changed_one_is_not(sets_client: MakeSets) -> None:
    client, elsewhere = sets_client(), sets_client("other.sqlite")
    made = created(client, "evens", by="ada")
    done = changed(client, made, {"kind": "judge", "accept": ["entity 2"]}, by="bob", note="even")
    done = changed(client, done, {"kind": "judge", "clear": ["entity 2"], "reject": ["entity 5"]})
    changed(client, done, {"kind": "undo", "undo": 3})
    whole = client.get(f"/v1/sets/{made['id']}/export").json()
    found = elsewhere.post("/v1/sets/import", json=whole).json()
    assert [(one["name"], one["by"], one["note"]) for one in found["accepted"]] == [
        ("entity 2", "bob", "even")
    ]
    again = elsewhere.get(f"/v1/sets/{found['id']}/export").json()
    assert again == whole
    assert elsewhere.post("/v1/sets/import", json=whole).json()["error"]["code"] == "set_exists"
    parts: list[Json] = [{"accepted": []}, {"name": "odds"}, {"events": whole["events"][:-1]}]
    for part in parts:
        assert elsewhere.post("/v1/sets/import", json={**whole, **part}).status_code == 422


def test_a_question_is_kept_as_it_was_asked(sets_client: MakeSets) -> None:
    question = {
        "positive": ["entity 2", {"name": "entity 4", "weight": 0.5}],
        "filter": {"parity": ["even"], "none": [{"parity": {"prefix": "o", "all": ["odd"]}}]},
        "context": [{"positive": "entity 2", "negative": 3}],
        "exclude": ["entity 6", 8],
    }
    made = created(sets_client(), question=question)
    assert made["question"] == question
    export = sets_client().get(f"/v1/sets/{made['id']}/export").json()
    assert created(sets_client("other.sqlite"), "again", question=export["question"])["question"] == question
    assert sets_client("third.sqlite").post("/v1/sets/import", json=export).json()["question"] == question


def test_who_it_was_is_the_token_where_there_are_tokens(sets_client: MakeSets) -> None:
    client = sets_client(tokens={"ada": hashlib.sha256(b"secret").hexdigest()})
    assert client.get("/v1/sets").status_code == 401
    client.headers["authorization"] = "Bearer secret"
    assert created(client, by="somebody else")["created_by"] == "ada"


def test_an_import_cannot_put_words_into_the_mouth_of_others(sets_client: MakeSets) -> None:
    open_to_all = sets_client()
    made = created(open_to_all, "evens", by="ada")
    changed(open_to_all, made, {"kind": "judge", "accept": ["entity 2"]}, by="b" * 100)
    whole = open_to_all.get(f"/v1/sets/{made['id']}/export").json()
    client = sets_client("other.sqlite", tokens={"eve": hashlib.sha256(b"secret").hexdigest()})
    client.headers["authorization"] = "Bearer secret"
    found = client.post("/v1/sets/import", json=whole).json()
    assert found["created_by"] == "ada (imported by eve)"
    (accepted,) = found["accepted"]
    assert accepted["by"].endswith("bbb (imported by eve)")
    again = client.get(f"/v1/sets/{found['id']}/export").json()
    assert client.delete(f"/v1/sets/{found['id']}", params={"version": 2}).status_code == 200
    twice = client.post("/v1/sets/import", json=again).json()
    assert (twice["created_by"], twice["accepted"][0]["by"]) == ("ada (imported by eve)", accepted["by"])


def test_a_set_is_deleted_only_as_it_was_seen(sets_client: MakeSets) -> None:
    client = sets_client()
    made = created(client)
    changed(client, made, {"kind": "judge", "accept": ["entity 1"]})
    path = f"/v1/sets/{made['id']}"
    assert client.delete(path, params={"version": 1}).status_code == 409
    assert client.delete(path, params={"version": 2}).json() == {"deleted": made["id"]}
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_set")


def test_without_a_file_the_routes_say_how_to_have_one(make_service: MakeService) -> None:
    client = TestClient(create_app(make_service()))
    answer = client.get("/v1/sets")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_available")
    assert "--sets" in answer.json()["error"]["message"]


def test_the_file_is_in_a_local_workspace_unless_it_is_said_otherwise(tmp_path: Path) -> None:
    of = ServeSettings.model_validate
    assert sets_file(of({"workspace": str(tmp_path)})) == tmp_path / "sets" / "sets.sqlite"
    assert sets_file(of({"workspace": str(tmp_path), "sets": "none"})) is None
    assert sets_file(of({"workspace": "s3://bucket/prefix"})) is None
    chosen = of({"workspace": "s3://bucket/prefix", "sets": str(tmp_path / "mine.sqlite")})
    assert sets_file(chosen) == tmp_path / "mine.sqlite"
    with pytest.raises(ValueError, match="no file of this machine"):
        of({"workspace": str(tmp_path), "sets": "s3://bucket/sets.sqlite"})


def test_curators_see_how_far_they_agree_and_what_they_have_not_judged(sets_client: MakeSets) -> None:
    client = sets_client()
    made = created(client, by="ada")
    first = {"kind": "judge", "accept": ["entity 1", "entity 2"], "reject": ["entity 3"]}
    done = changed(client, made, first, by="ada")
    changed(
        client, done, {"kind": "judge", "accept": ["entity 1"], "reject": ["entity 2"]}, by="bob", note="no"
    )
    path = f"/v1/sets/{made['id']}/agreement"
    found = client.get(path, params={"curator": "bob"}).json()
    assert (found["version"], found["shared"], found["agreed"]) == (3, 2, 1)
    assert found["to_judge"] == ["entity 3"]
    (split,) = found["disagreements"]
    assert (split["name"], split["id"], split["stands"]) == ("entity 2", 2, "rejected")
    assert [(one["by"], one["note"]) for one in split["judgements"]] == [("ada", ""), ("bob", "no")]
    (pair,) = found["pairs"]
    assert (pair["judged"], pair["agreed"], pair["kappa"]) == (2, 1, 0)
    assert client.get(f"/v1/sets/{'0' * 32}/agreement").status_code == 404
    tokens = {"bob": hashlib.sha256(b"secret").hexdigest()}
    by_token = sets_client(tokens=tokens)
    by_token.headers["authorization"] = "Bearer secret"
    assert by_token.get(path, params={"curator": "ada"}).json()["to_judge"] == ["entity 3"], (
        "the token's name"
    )
