"""One application among others on a Serve: what is refused, what is waited for, and what is ended."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from ray import serve
from ray.serve import context

from engine.errors import UserError
from serve.operations import running
from serve.operations.running import RunningServe, drain, end_application, running_serve
from serve.settings import NAME


@pytest.mark.parametrize(
    ("host", "port", "paths", "why"),
    [
        ("127.0.0.1", 8123, {"other": "/other"}, "--port 8123: .* listens at port 8000, .* give --port 8000"),
        ("0.0.0.0", 8000, {"other": "/other"}, "--host 0.0.0.0: .* listens at 127.0.0.1"),
        (
            "127.0.0.1",
            8000,
            {NAME: "/here"},
            f"'{NAME}' is served on this cluster already.* serve delete {NAME}",
        ),
        ("127.0.0.1", 8000, {"other": "/"}, "'other' has the path / .*route_prefix"),
        ("127.0.0.1", 8000, {"other": "/other", "third": ""}, None),
        ("127.0.0.1", 8000, {}, None),
    ],
)
def test_who_joins_must_fit(host: str, port: int, paths: Mapping[str, str], why: str | None) -> None:
    found = RunningServe("127.0.0.1", 8000, paths)
    if why is None:
        found.check_joinable(host, port)
        return
    with pytest.raises(UserError) as refused:
        found.check_joinable(host, port)
    assert re.search(why, str(refused.value))


class Controller:
    """Serve's client, with some applications."""

    def __init__(self, *names: str) -> None:
        self.http_config = serve.HTTPOptions(host="127.0.0.1", port=8001)
        self._names = names

    def get_serve_details(self) -> dict[str, Any]:
        return {"applications": {name: {"route_prefix": f"/{name}"} for name in self._names}}


@pytest.mark.parametrize(
    ("names", "started", "ended"),
    [
        ([NAME], True, ["shutdown"]),
        ([], True, ["shutdown"]),
        ([NAME, "other"], True, [f"delete {NAME}"]),
        ([NAME], False, [f"delete {NAME}"]),
        ([NAME, "other"], False, [f"delete {NAME}"]),
        (["other"], False, []),
        (["other"], True, []),
        (None, True, []),
    ],
)
def test_only_what_was_begun_here_is_ended(
    monkeypatch: pytest.MonkeyPatch, names: Sequence[str] | None, started: bool, ended: list[str]
) -> None:
    client = None if names is None else Controller(*names)
    monkeypatch.setattr(context, "_get_global_client", lambda **_: client)
    done: list[str] = []
    monkeypatch.setattr(serve, "shutdown", lambda: done.append("shutdown"))
    monkeypatch.setattr(serve, "delete", lambda name: done.append(f"delete {name}"))
    end_application(started)
    assert done == ended
    found = running_serve()
    assert found is None or (found.port, dict(found.paths)) == (
        8001,
        {name: f"/{name}" for name in names or ()},
    )


class Ingress:
    """A handle whose replicas tell how many requests are under way, less each time."""

    def __init__(self, *counts: object) -> None:
        self.asked = 0
        self._counts = counts

    def broadcast(self, method: str) -> Ingress:
        assert method == "drain"
        return self

    def results(self, **_: Any) -> list[object]:
        self.asked += 1
        left = self._counts[min(self.asked, len(self._counts)) - 1]
        if isinstance(left, Exception):
            raise left
        return [left, 0, RuntimeError("a replica that has just died")]


@pytest.mark.parametrize(
    ("ingress", "bound_s", "asked", "warns"),
    [
        (Ingress(0), 5, 1, ""),
        (Ingress(3, 2, 0), 5, 3, ""),
        (Ingress(6), 0, 1, "6 requests under way have not ended"),
        (Ingress(ConnectionError("gone")), 5, 1, "could not be waited for: ConnectionError"),
    ],
)
def test_requests_under_way_are_waited_for_within_a_bound(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    ingress: Ingress,
    bound_s: float,
    asked: int,
    warns: str,
) -> None:
    monkeypatch.setattr(running, "PAUSE_S", 0.001)
    monkeypatch.setattr(running, "DELIVERY_S", 0.001)
    monkeypatch.setattr(serve, "get_deployment_handle", lambda name, app: ingress)
    drain(bound_s)
    assert ingress.asked == asked
    assert warns in caplog.text


def test_they_are_not_waited_for_where_that_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(serve, "get_deployment_handle", lambda name, app: Ingress(4))
    answers = iter([False, True])
    drain(60, lambda: next(answers))
    assert "4 requests under way have not ended" in caplog.text
