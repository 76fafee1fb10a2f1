"""What goes wrong behind the HTTP interface, and what callers are told of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from engine.errors import BundleError, FormatError, StorageError
from engine.query import Expansion, Query, Ranking
from serve.errors import OverloadedError
from serve.http.routes import create_app
from serve.messages import Failure, Outcome, Progress
from tests.support.services import MakeClient, MakeService


class Canned:
    """A dispatch with a given outcome for every expansion, or an error."""

    def __init__(self, outcome: Exception | Outcome) -> None:
        self._outcome = outcome

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return [self._outcome] * len(expansions)

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        (outcome,) = await self(route, bundle, [expansion], request_id)
        yield outcome


def carried_by_ray(error: Exception) -> Exception:
    """Return an error as it comes out of another process: of the same class, and its text a traceback."""

    class Carried(type(error)):  # type: ignore[misc]
        def __init__(self) -> None:
            self.cause = error

        def __str__(self) -> str:
            return 'Traceback (most recent call last): File "/secret/engine.py"'

    return Carried()


@pytest.mark.parametrize(
    ("outcome", "status", "code", "retry_after"),
    [
        (BundleError("no lm"), 503, "bundle", None),
        (carried_by_ray(BundleError("no lm")), 503, "bundle", None),
        (StorageError("/secret/ws/x: gone"), 503, "storage", None),
        (FormatError("s3://secret/x: cut off"), 503, "storage", None),
        (BundleError("/secret/ws: none", public="none was published"), 503, "bundle", None),
        (Failure("bundle", "no lm", 503), 503, "bundle", None),
        (Failure("timeout", "late", 504), 504, "timeout", None),
        (OverloadedError("too much", 2.1), 503, "overloaded", "3"),
        (Failure("unavailable", "gone", 503, 0.2), 503, "unavailable", "1"),
    ],
)
def test_what_goes_wrong_behind_has_its_status(
    make_client: MakeClient, outcome: Any, status: int, code: str, retry_after: str | None
) -> None:
    client = make_client(Canned(outcome))
    response = client.post("/v1/expand", json={"positive": [1]})
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.json()["error"]["message"]
    assert "secret" not in response.text
    assert response.headers.get("retry-after") == retry_after
    batch = client.post("/v1/expand/batch", json={"queries": [{"positive": [1]}, {"positive": ["?"]}]})
    assert [r["error"]["code"] for r in batch.json()["results"]] == [code, "unknown_entity"]


@pytest.mark.parametrize("outcome", [ZeroDivisionError("secret"), Failure("internal", "see the log", 500)])
def test_an_error_of_ours_shows_an_id_that_is_in_the_log_and_no_more(
    make_client: MakeClient, caplog: pytest.LogCaptureFixture, outcome: Any
) -> None:
    headers = {"x-request-id": "abc.1-2_3"}
    response = make_client(Canned(outcome)).post("/v1/expand", json={"positive": [1]}, headers=headers)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["id"]) == (500, "internal", "abc.1-2_3")
    assert "secret" not in response.text
    assert "abc.1-2_3" in {getattr(record, "request_id", "") for record in caplog.records}


def test_an_exception_anywhere_is_a_plain_500(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = make_service()
    client = TestClient(create_app(service), raise_server_exceptions=False)
    monkeypatch.setattr(service, "listing", lambda: 1 / 0)
    response = client.get("/v1/methods")
    assert response.json()["error"]["id"] == response.headers["x-request-id"]
    assert "ZeroDivisionError" in caplog.text
    assert "division" not in response.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_numbers_that_are_none_become_null(make_client: MakeClient) -> None:
    ranking = Ranking(
        np.array([5], np.int32),
        np.array([math.inf], np.float32),
        {"negative": np.array([math.nan], np.float32)},
    )
    said = {"class_name": "countries", "positive": "that lie in Asia"}
    done = Expansion(Query("q", (1,)), ranking, {}, ("Retrieve: a note",), said)
    answer = make_client(Canned(done)).post("/v1/expand", json={"positive": [1]}).json()
    assert answer["results"][0]["score"] is None
    assert answer["results"][0]["evidence"] == {"negative": None}
    assert answer["degraded"] == ["Retrieve: a note"]
    assert answer["reasoning"] == said
