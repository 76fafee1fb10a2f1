"""What the audit log has of requests, and who may read it."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from serve.audit.recorder import LocalAudit, Recorder
from serve.http.audit_routes import AuditEntries
from serve.http.routes import create_app
from serve.operations.audit import main
from serve.sets.access import LocalSets
from serve.settings import RIGHTS, ServeSettings
from tests.support.services import MakeService

TOKENS = {right: {"rights": right, "sha256": hashlib.sha256(right.encode()).hexdigest()} for right in RIGHTS}


class Audited:
    """A service with an audit log; what it is asked is written when a test says so."""

    def __init__(self, make_service: MakeService, folder: Path, tokens: object = TOKENS) -> None:
        self.path = folder / "audit.jsonl"
        settings = ServeSettings(workspace="w", audit=str(self.path))
        self.recorder = Recorder(LocalAudit(settings))
        sets = LocalSets(folder / "sets.sqlite")
        self.client = TestClient(create_app(make_service(tokens=tokens), sets=sets, recorder=self.recorder))

    def ask(self, who: str, method: str, path: str, **more: Any) -> Any:
        headers = {"authorization": f"Bearer {who}", "x-request-id": f"{who}-1"}
        return self.client.request(method, path, headers=headers, **more)

    def entries(self) -> list[dict[str, Any]]:
        asyncio.run(self.recorder.flush())
        lines = self.path.read_text().splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def audited(make_service: MakeService, tmp_path: Path) -> Audited:
    return Audited(make_service, tmp_path)


def test_it_says_who_asked_curated_and_published_what(audited: Audited) -> None:
    query = {"positive": ["entity 1"], "top_k": 2}
    assert audited.ask("read", "POST", "/v1/expand", json=query).status_code == 200
    assert audited.ask("read", "GET", "/v1/entities?search=entity&limit=3").status_code == 200
    assert audited.ask("read", "POST", "/v1/sets", json={"name": "evens"}).status_code == 403
    made = audited.ask("curate", "POST", "/v1/sets", json={"name": "evens"}).json()
    change = {"version": 1, "change": {"kind": "judge", "accept": ["entity 2"], "reject": ["entity 3"]}}
    audited.ask("curate", "POST", f"/v1/sets/{made['id']}/events", json=change)
    audited.ask("read", "POST", "/v1/reconcile", data={"queries": '{"q": {"query": "entity 1"}}'})
    asked, searched, refused, created, judged, matched = audited.entries()
    assert asked | {"time": "", "ms": 0} == {
        "time": "",
        "event": "asked",
        "who": "read",
        "request_id": "read-1",
        "route": "POST /v1/expand",
        "status": 200,
        "ms": 0,
        "method": "retexpan",
        "bundle": asked["bundle"],
        "queries": 1,
        "body": query,
    }
    assert searched["params"] == {"search": "entity", "limit": "3"}
    assert (refused["event"], refused["who"], refused["status"]) == ("curated", "read", 403)
    assert "body" not in refused
    assert audited.ask("read", "DELETE", f"/v1/sets/{made['id']}?version=1").status_code == 403
    (*_, undone) = audited.entries()
    assert (undone["route"], undone["path"]) == ("DELETE /v1/sets/{set_id}", {"set_id": made["id"]})
    assert (created["event"], created["who"], created["body"]) == ("curated", "curate", {"name": "evens"})
    assert (judged["path"], judged["body"]) == ({"set_id": made["id"]}, change)
    assert "entity+1" in matched["body"]


def test_it_holds_no_secret_and_nothing_of_who_has_no_token(audited: Audited) -> None:
    secret = "very-secret-token"
    assert audited.ask(secret, "POST", "/v1/expand", json={"positive": [secret]}).status_code == 401
    assert audited.ask("read", "GET", f"/v1/methods?token={secret}").status_code == 422
    for path in ("/", "/healthz", "/readyz", "/openapi.json", "/nowhere", "/v1/nowhere"):
        audited.ask("read", "GET", path)
    (one,) = audited.entries()
    assert (one["route"], one["status"]) == ("GET /v1/methods", 422)
    assert "Bearer" not in audited.path.read_text()
    assert secret not in audited.path.read_text()


def test_the_route_answers_those_who_may_publish(audited: Audited) -> None:
    for number in range(3):
        audited.ask("read", "GET", f"/v1/entities/entity {number}?neighbours=0")
    audited.ask("curate", "POST", "/v1/sets", json={"name": "evens"})
    before = audited.entries()
    assert audited.ask("curate", "GET", "/v1/audit").status_code == 403
    audited.recorder.record({"event": "served", "bundle": "b", "before": "a"})
    asyncio.run(audited.recorder.flush())
    found = audited.ask("publish", "GET", "/v1/audit?limit=2").json()
    AuditEntries.model_validate(found)
    assert [one["event"] for one in found["entries"]] == ["served", "published"]
    assert found["more"]
    older = audited.ask("publish", "GET", "/v1/audit?who=read&event=asked&offset=1&since=2026-01-01").json()
    assert [one["path"]["given"] for one in older["entries"]] == ["entity 1", "entity 0"]
    at = before[1]["time"].replace("+", "%2B")
    cut = audited.ask("publish", "GET", f"/v1/audit?since={at}&who=read").json()
    assert [one["path"]["given"] for one in cut["entries"]] == ["entity 2", "entity 1"]
    assert audited.ask("publish", "GET", "/v1/audit?since=tomorrow").json()["error"]["field"] == "since"
    published = [one for one in audited.entries() if one["event"] == "published"]
    assert [(one["who"], one["status"]) for one in published] == [
        ("curate", 403),
        ("publish", 200),
        ("publish", 200),
        ("publish", 200),
        ("publish", 422),
    ]


def test_without_tokens_it_is_written_and_read_by_everybody(
    make_service: MakeService, tmp_path: Path
) -> None:
    audited = Audited(make_service, tmp_path, tokens={})
    audited.client.post("/v1/expand", json={"positive": ["entity 1"], "top_k": 1})
    (one,) = audited.entries()
    assert "who" not in one
    assert audited.client.get("/v1/audit").json()["entries"] == [one]


def test_without_a_log_the_route_says_how_to_have_one(make_service: MakeService) -> None:
    answer = TestClient(create_app(make_service())).get("/v1/audit")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_available")
    assert "--audit FILE" in answer.json()["error"]["message"]


def test_the_command_reads_what_was_written(audited: Audited) -> None:
    for who in ("read", "curate", "read"):
        audited.ask(who, "GET", "/v1/methods")
    written = audited.entries()
    words = ["--file", str(audited.path), "--who", "read", "--since", "2026-01-01", "--event", "asked"]
    done = CliRunner().invoke(main.app, words)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [written[0], written[2]]
    done = CliRunner().invoke(main.app, ["--file", str(audited.path), "--limit", "1"])
    assert [json.loads(line) for line in done.stdout.splitlines()] == [written[2]]
