"""Test what the service promises its dispatch: one snapshot a request, deadlines, few threads."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from engine.query import Expansion, Ranking
from engine.vocabulary import Vocabulary
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http import service as service_module
from serve.http.errors import Problem, ProblemError
from serve.http.listings import EntityParts
from serve.http.requests import BatchRequest, ExpandRequest
from serve.http.resolve import SUGGESTIONS, Arrival, resolve_query
from serve.http.routes import create_app
from serve.http.service import Service
from serve.http.trace import Trace
from serve.messages import Outcome, Progress, RoundDone, StageDone
from serve.settings import ServeSettings
from serve.telemetry.metrics import Metrics
from tests.support.services import MakeService


class Noted:
    """A dispatch that notes what it is asked, waits, and ranks entity 5."""

    def __init__(self, wait_s: float = 0) -> None:
        self.asked: list[tuple[str, str, Sequence[Expansion], str]] = []
        self.closed = threading.Event()
        self.begun: asyncio.Event | None = None
        self.go_on: asyncio.Event | None = None
        self._wait_s = wait_s

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        self.asked.append((route, bundle, expansions, request_id))
        if self.begun and self.go_on:
            self.begun.set()
            await self.go_on.wait()
        await asyncio.sleep(self._wait_s)
        ranking = Ranking(np.array([5], np.int32), np.array([1], np.float32))
        return [replace(e, ranking=ranking, degraded=("Retrieve: left out",)) for e in expansions]

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        try:
            yield StageDone("Retrieve", 0.25, 9)
            yield RoundDone("Generate", 1, (7, 8), 2)
            (outcome,) = await self(route, bundle, [expansion], request_id)
            yield outcome
        finally:
            self.closed.set()


def request(**given: Any) -> ExpandRequest:
    return ExpandRequest.model_validate({"positive": [1], **given})


def test_what_a_request_says_of_its_seeds_reaches_the_stages(make_service: MakeService) -> None:
    dispatch = Noted()
    said = {
        "class_name": "cities",
        "positive_attributes": {"river": ["Rhine", "Rhine", "Main"]},
        "negative_attributes": {"coast": ["yes"]},
    }
    asyncio.run(make_service(dispatch).expand(request(**said), Trace()))
    ((_, _, (expansion,), _),) = dispatch.asked
    query = expansion.query
    assert (query.class_name, query.filters) == ("cities", ())
    assert query.positive_attributes == (("river", ("Rhine", "Main")),)
    assert query.negative_attributes == (("coast", ("yes",)),)


def test_a_request_uses_one_snapshot_to_its_end(make_service: MakeService, snapshot: BundleSnapshot) -> None:
    dispatch = Noted()
    service = make_service(dispatch)
    other = replace(
        snapshot,
        manifest=snapshot.manifest.model_copy(update={"id": "other"}),
        vocabulary=Vocabulary([f"another {i}" for i in range(500)]),
    )

    async def swap_under_way() -> tuple[Any, Any]:
        dispatch.begun, dispatch.go_on = asyncio.Event(), asyncio.Event()
        first = asyncio.create_task(service.expand(request(), Trace()))
        await dispatch.begun.wait()
        service.snapshot = other
        dispatch.go_on.set()
        return await first, await service.expand(request(), Trace())

    before, after = asyncio.run(swap_under_way())
    assert (before["bundle"], before["results"][0]["name"]) == (snapshot.id, "entity 5")
    assert (after["bundle"], after["results"][0]["name"]) == ("other", "another 5")
    assert [bundle for _, bundle, _, _ in dispatch.asked] == [snapshot.id, "other"]


def test_a_snapshot_that_changes_while_a_filter_is_looked_up_is_for_later_requests(
    make_service: MakeService, snapshot: BundleSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatch = Noted()
    service = make_service(dispatch)
    to_thread = asyncio.to_thread

    async def swapping(*given: Any) -> Any:
        found = await to_thread(*given)
        service.snapshot = replace(snapshot, manifest=snapshot.manifest.model_copy(update={"id": "other"}))
        return found

    monkeypatch.setattr(asyncio, "to_thread", swapping)
    answer = asyncio.run(service.expand(request(filter={"class": ["rare"]}), Trace()))
    assert (answer["bundle"], dispatch.asked[0][1]) == (snapshot.id, snapshot.id)


def test_a_wrong_filter_is_told_before_any_stage_runs(make_service: MakeService) -> None:
    dispatch = Noted()
    with pytest.raises(ProblemError, match="no entity has"):
        asyncio.run(make_service(dispatch).expand(request(filter={"class": ["x"]}), Trace()))
    assert not dispatch.asked


@pytest.mark.parametrize(("deadline_ms", "seconds"), [(None, 5), (2000, 2), (3_600_000, 5)])
def test_every_query_has_a_deadline(
    make_service: MakeService, deadline_ms: int | None, seconds: float
) -> None:
    dispatch = Noted()
    service = make_service(dispatch, timeout_s=5)
    before = time.monotonic()
    asyncio.run(service.expand(request(deadline_ms=deadline_ms), Trace("r")))
    ((route, _, (expansion,), request_id),) = dispatch.asked
    assert (route, request_id) == ("retexpan", "r")
    assert expansion.query.deadline is not None
    assert before + seconds <= expansion.query.deadline.at <= time.monotonic() + seconds


def test_what_does_not_come_in_time_is_cancelled(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ANSWER_GRACE_S", 0.02)
    service = make_service(Noted(wait_s=60), timeout_s=60)
    started = time.perf_counter()
    with pytest.raises(ProblemError) as late:
        asyncio.run(service.expand(request(deadline_ms=10), Trace()))
    assert time.perf_counter() - started < 20
    assert (late.value.problem.code, late.value.problem.status) == ("timeout", 504)
    assert b'seedset_shed_total{reason="timeout"} 1.0' in service.metrics.render()


def test_queries_for_one_route_go_together(make_service: MakeService) -> None:
    dispatch = Noted()
    queries = [
        {"positive": [1], "id": "a"},
        {"positive": [2], "id": "b", "method": "genexpan"},
        {"positive": [3], "id": "c", "explain": True},
        {"positive": [4], "id": "d", "method": "default"},
    ]
    trace = Trace()
    found = asyncio.run(make_service(dispatch).expand_batch(BatchRequest(queries=queries), trace))
    asked = {route: [e.query.id for e in expansions] for route, _, expansions, _ in dispatch.asked}
    assert asked == {"retexpan": ["a", "d"], "genexpan": ["b"], "retexpan!explain": ["c"]}
    assert [one["id"] for one in found["results"]] == ["a", "b", "c", "d"]
    assert (trace.method, trace.queries, trace.degraded) == ("several", 4, 4)


def test_new_entities_have_negative_ids_in_their_order(make_service: MakeService) -> None:
    dispatch = Noted()
    new = [{"name": f"new {i}", "sentences": [f"new {i} came."]} for i in range(3)]
    asked = request(positive=[new[0], 4, new[1]], negative=[new[2], "entity 9"])
    asyncio.run(make_service(dispatch).expand(asked, Trace()))
    query = dispatch.asked[0][2][0].query
    assert (query.positive, query.negative) == ((-1, 4, -2), (-3, 9))
    assert [one.name for one in query.new] == ["new 0", "new 1", "new 2"]
    assert query.new[2].sentences == ("new 2 came.",)


def test_seeds_are_understood_whatever_their_signs(make_service: MakeService) -> None:
    dispatch = Noted()
    new = {"name": "\ufeffCafe\u0301\u00a0bay", "sentences": ["Cafe\u0301 bay came."]}
    asyncio.run(
        make_service(dispatch).expand(request(positive=["entity\u00a04", "ｅntity 5\u200b", new]), Trace())
    )
    query = dispatch.asked[0][2][0].query
    assert (query.positive, query.new[0].name) == ((4, 5, -1), "Caf\u00e9 bay")
    assert query.new[0].sentences == ("Caf\u00e9 bay came.",)
    for positive, word in (
        ([new, {**new, "name": "CAF\u00c9\u2003bay"}], "given twice"),
        ([{**new, "name": "\u200b"}], "no visible sign"),
        ([{**new, "name": "ENTITY\u00a04"}], "in the vocabulary as 'entity 4'"),
    ):
        with pytest.raises(ProblemError, match=word):
            asyncio.run(make_service(dispatch).expand(request(positive=positive), Trace()))


@pytest.mark.parametrize(
    ("given", "threads"),
    [
        ({}, 0),
        ({"positive": [1, "entity 2"], "top_k": 499}, 0),
        ({"top_k": 500}, 1),
        ({"filter": {"class": ["rare"]}}, 1),
        ({"explain": True}, 1),
    ],
)
def test_only_what_takes_long_goes_to_a_thread(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], threads: int
) -> None:
    service, handed = make_service(Noted()), []
    to_thread = asyncio.to_thread

    async def counted(*given: Any) -> Any:
        handed.append(given)
        return await to_thread(*given)

    monkeypatch.setattr(asyncio, "to_thread", counted)
    asyncio.run(service.expand(request(**given), Trace()))
    assert len(handed) == threads


def test_what_was_left_out_is_counted_by_stages_that_are_known(make_service: MakeService) -> None:
    service = make_service(Noted())
    asyncio.run(service.expand(request(), Trace()))
    assert b'seedset_degraded_total{stage="Retrieve"} 1.0' in service.metrics.render()


def test_a_stream_says_what_happens_and_closes_its_source(make_service: MakeService) -> None:
    dispatch = Noted()

    async def read() -> list[tuple[str, Any]]:
        return [event async for event in await make_service(dispatch).stream(request(), Trace())]

    stage, round_, (name, answer) = asyncio.run(read())
    assert stage == ("stage", {"stage": "Retrieve", "seconds": 0.25, "candidates": 9})
    new = [{"id": 7, "name": "entity 7"}, {"id": 8, "name": "entity 8"}]
    assert round_ == ("round", {"stage": "Generate", "number": 1, "new": new, "total": 2})
    assert (name, answer["results"][0]["name"]) == ("answer", "entity 5")
    assert dispatch.closed.is_set()


def test_a_stream_that_is_late_ends_with_an_error(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "ANSWER_GRACE_S", 0.02)
    dispatch = Noted(wait_s=60)

    async def read() -> list[tuple[str, Any]]:
        events = await make_service(dispatch).stream(request(deadline_ms=10), Trace())
        return [event async for event in events]

    events = asyncio.run(read())
    assert [name for name, _ in events] == ["stage", "round", "error"]
    assert events[-1][1]["error"]["code"] == "timeout"
    assert dispatch.closed.is_set()


def test_readiness_is_asked_once_a_second(snapshot: BundleSnapshot) -> None:
    calls = 0

    async def ready() -> Mapping[str, str]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)
        return {"Retrieve": "ok", "Generate": "no answer"}

    service = Service(ServeSettings(workspace="w"), snapshot, Noted(), Metrics(), ready)

    async def ask() -> list[Mapping[str, str]]:
        return await asyncio.gather(*(service.readiness() for _ in range(5)), service.readiness())

    assert asyncio.run(ask()) == [{"Retrieve": "ok", "Generate": "no answer", "bundle": "ok"}] * 6
    assert calls == 1


def test_what_is_not_ready_is_503(snapshot: BundleSnapshot) -> None:
    from fastapi.testclient import TestClient

    async def ready() -> Mapping[str, str]:
        return {"Retrieve": "no answer within 3 s"}

    service = Service(ServeSettings(workspace="w"), snapshot, Noted(), Metrics(), ready)
    response = TestClient(create_app(service)).get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"ready": False, "stages": {"Retrieve": "no answer within 3 s", "bundle": "ok"}}


def test_a_bundle_that_was_refused_is_told(make_service: MakeService) -> None:
    service = make_service(Noted())
    service.refused = ("bad", "a file is missing")
    assert service.bundle()["refused"] == {"id": "bad", "reason": "a file is missing"}


def test_what_a_bundle_was_made_of_is_told_without_places(make_service: MakeService) -> None:
    service = make_service(Noted())
    made = {
        "encoder": "/srv/models/bert-base/",
        "views": {"mask": 384},
        "lm": {"model": "s3://bucket/lm/small", "run": "lm-V8-e1"},
        "trained": ["org/name", "models/mine", "../ann/models/own", "~ann/own", None, True],
    }
    manifest = service.snapshot.manifest.model_copy(update={"settings": made})
    service.snapshot = replace(service.snapshot, manifest=manifest)
    assert service.bundle()["settings"] == {
        "encoder": "bert-base",
        "views": {"mask": 384},
        "lm": {"model": "small", "run": "lm-V8-e1"},
        "trained": ["org/name", "models/mine", "own", "own", None, True],
    }


def test_ids_and_names_are_asked_apart_and_ids_go_with_their_bundle(
    make_service: MakeService, snapshot: BundleSnapshot
) -> None:
    service = make_service(Noted())
    names = [f"entity {i}" for i in range(500)]
    service.snapshot = replace(snapshot, vocabulary=Vocabulary([*names[:5], "3", *names[6:]]))

    def by_name(name: str) -> Any:
        return asyncio.run(service.entity(name, EntityParts(0, 0), Trace()))

    def by_id(bundle: str, entity: int) -> Any:
        return asyncio.run(service.entity_by_id(bundle, entity, EntityParts(0, 0), Trace()))

    assert by_name("3")["id"] == 5
    for bundle in (snapshot.id, "current"):
        assert by_id(bundle, 3)["name"] == "entity 3"
        assert by_id(bundle, 5)["name"] == "3"
    with pytest.raises(ProblemError, match=f"unknown entity '4'.*/v1/bundles/{snapshot.id}/entities/ID"):
        by_name("4")

    manifest = snapshot.manifest.model_copy(update={"id": "other"})
    service.snapshot = replace(snapshot, manifest=manifest, vocabulary=Vocabulary(names[::-1]))
    with pytest.raises(ProblemError, match="unknown entity '3'"):
        by_name("3")
    with pytest.raises(ProblemError, match=f"{snapshot.id}.*'other'") as gone:
        by_id(snapshot.id, 3)
    assert (gone.value.problem.code, gone.value.status) == ("other_bundle", 409)
    assert by_id("other", 3)["name"] == "entity 496"


def test_seeds_by_id_are_refused_where_they_are_of_another_bundle(
    make_service: MakeService, snapshot: BundleSnapshot
) -> None:
    service = make_service(Noted())
    assert asyncio.run(service.expand(request(bundle=snapshot.id), Trace()))["bundle"] == snapshot.id
    with pytest.raises(ProblemError) as wrong:
        asyncio.run(service.expand(request(bundle="0123456789abcdef"), Trace()))
    assert (wrong.value.problem.code, wrong.value.problem.field) == ("other_bundle", "bundle")
    batch = BatchRequest(queries=[{"positive": [1], "bundle": "x"}, {"positive": [1]}])
    first, second = asyncio.run(service.expand_batch(batch, Trace()))["results"]
    assert first["error"]["code"] == "other_bundle"
    assert second["results"]


def test_a_request_looks_few_unknown_names_up_and_none_after_its_deadline(
    make_service: MakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []
    seconds = [0.0]

    def closest(self: Vocabulary, text: str, n: int = 3) -> list[str]:
        looked_up.append(text)
        time.sleep(seconds[-1])
        return ["entity 1"]

    monkeypatch.setattr(Vocabulary, "closest", closest)
    service = make_service(Noted())
    batch = BatchRequest(queries=[{"positive": [f"unknown {i}", 1]} for i in range(256)])
    results = asyncio.run(service.expand_batch(batch, Trace()))["results"]
    assert len(looked_up) == SUGGESTIONS
    assert [one["error"]["code"] for one in results] == ["unknown_entity"] * 256
    assert [bool(one["error"]["suggestions"]) for one in results] == [True] * 16 + [False] * 240
    assert results[-1]["error"]["message"] == "positive.0: unknown entity 'unknown 255'"

    looked_up.clear()
    seconds.append(0.1)
    batch = BatchRequest(queries=[{"positive": ["unknown"], "deadline_ms": 250} for _ in range(16)])
    asyncio.run(service.expand_batch(batch, Trace()))
    assert 1 <= len(looked_up) <= 3


def test_a_querys_time_begins_with_its_request(make_service: MakeService, snapshot: BundleSnapshot) -> None:
    service, arrival = make_service(Noted()), Arrival(at=time.monotonic() - 3)
    found = resolve_query(request(deadline_ms=5000), snapshot, service.settings, arrival)
    assert not isinstance(found, Problem)
    assert found.deadline.remaining() <= 2
