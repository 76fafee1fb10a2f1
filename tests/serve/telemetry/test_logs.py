"""The log: one JSON object a line, whatever came in."""

from __future__ import annotations

import io
import json
import logging

import pytest

from engine.errors import QueryError, StorageError
from serve.telemetry.logs import NAME, JsonFormatter, configure_logs, log_event, log_withheld
from tests.support.services import MakeClient


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Return what is logged while a test runs."""
    sink = io.StringIO()
    monkeypatch.setattr("sys.stderr", sink)
    configure_logs("INFO")
    return sink


def test_what_came_from_outside_cannot_forge_a_line(written: io.StringIO) -> None:
    log_event("swap\nforged", bundle='x"\n{"event": "forged"}', odd="\u2028\ud800", number=3)
    (line,) = written.getvalue().splitlines()
    told = json.loads(line)
    assert (told["event"], told["number"]) == ("swap\nforged", 3)
    assert (told["bundle"], told["odd"]) == ('x"\n{"event": "forged"}', "\u2028\ud800")
    assert line.isascii()


def test_an_exception_stays_on_its_line(written: io.StringIO) -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger(f"{NAME}.serve").exception("failed")
    (line,) = written.getvalue().splitlines()
    assert "ValueError: a\nb" in json.loads(line)["exception"]


def test_configuring_twice_writes_once(written: io.StringIO) -> None:
    configure_logs("WARNING")
    log_event("quiet")
    log_event("loud", level=logging.ERROR)
    assert not logging.getLogger(NAME).propagate, "or a handler of the root would write it again"
    assert [json.loads(line)["event"] for line in written.getvalue().splitlines()] == ["loud"]


def test_each_request_is_one_line(written: io.StringIO, make_client: MakeClient) -> None:
    client = make_client()
    body = {"queries": [{"positive": [1], "top_k": 1}, {"positive": [2], "top_k": 1}]}
    client.post("/v1/expand/batch", json=body, headers={"x-request-id": "r-1"})
    client.get("/v1/entities/no%1Bsuch")
    first, second = (json.loads(line) for line in written.getvalue().splitlines())
    assert first | {"time": "", "ms": 0, "bundle": ""} == {
        "time": "",
        "level": "INFO",
        "logger": "seedset.serve",
        "event": "request",
        "request_id": "r-1",
        "route": "/v1/expand/batch",
        "method": "retexpan",
        "status": 200,
        "ms": 0,
        "bundle": "",
        "queries": 2,
        "degraded": 0,
    }
    assert (second["status"], second["route"]) == (404, "/v1/entities/{given:path}")


def test_the_formatter_takes_what_json_does_not_know() -> None:
    record = logging.makeLogRecord({"msg": "m", "path": object})
    assert json.loads(JsonFormatter().format(record))["path"] == str(object)


def test_what_callers_are_told_less_of_is_logged_whole(caplog: pytest.LogCaptureFixture) -> None:
    log_withheld(StorageError("/a: gone"), request_id="r")
    log_withheld(QueryError("no entities", public="no entities"))
    noted = [vars(record) for record in caplog.records]
    assert [(one["reason"], one["request_id"]) for one in noted] == [("/a: gone", "r")]
