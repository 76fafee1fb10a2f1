"""One real Serve application over HTTP: the local answers, mixed batches, a killed replica.

It runs in a process of its own, started as a user starts it: Ray connects once a process.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from engine.methods import METHODS
from engine.plugins import find_method
from engine.query import Expansion, NewEntity, Query
from engine.retrieval.opening import open_index
from engine.retrieval.plane import principal_plane
from engine.stages.base import Pipeline
from engine.stages.encode_new_entities import EncodeNewEntities
from engine.stages.explain import Explain
from engine.stages.options import change
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.publishing import point_to
from engine.storage.workspace import Workspace
from serve.client import Client
from serve.http.static import FOLDER
from tests.support.request_rows import as_request, compared, drawn
from tests.support.served import Server, server

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.serve]
METHOD = "retexpan"
OWN = "tests.support.own_methods:LIFTED"
"""A pipeline of a user's: replicas import its module."""

# Nobody is refused here, however slow the machine is.
SETTINGS = [
    "--set=num_cpus=0.1",
    "--set=bundle_poll_interval_s=0.3",
    "--set=body_timeout_s=1",
    "--set=max_wait_s=600",
]

GRAPHS = {
    "fused": [f"--methods=retexpan,retexpan+cds,default,composed,retexpan+genexpan,{OWN}"],
    # Every replica is a process to start: two where they matter.
    "per-stage": [
        "--per-stage",
        "--methods=retexpan",
        "--set=index_shards=2",
        "--set=stages.Retrieve.replicas=2",
    ],
}

on_fused_alone = pytest.mark.parametrize("served", ["fused"], indirect=True)
"""For what the ingress and the proxy do by themselves, whatever lies behind them."""


@pytest.fixture(scope="module", params=list(GRAPHS))
def served(
    request: pytest.FixtureRequest, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("served") / "log"
    audit = [f"--audit={log.parent / 'audit.jsonl'}"] if request.param == "fused" else []
    with server(bundle.folder.parent.parent, log, *GRAPHS[request.param], *SETTINGS, *audit) as running:
        yield running
        if request.param == "fused":
            stop_under_load(running)
    assert running.process.returncode == 0, log.read_text(encoding="utf-8")


def stop_under_load(running: Server) -> None:
    """SIGTERM while queries are under way: each of them is answered, new ones are refused."""
    asked = {"positive": [1, 2], "negative": [3], "method": "retexpan+genexpan", "top_k": 40}

    async def stop() -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=running.url, timeout=60) as client:
            under_way = [asyncio.create_task(client.post("/v1/expand", json=asked)) for _ in range(6)]
            await asyncio.sleep(0.3)
            assert not any(task.done() for task in under_way), "too quick to be stopped under way"
            running.process.terminate()
            end = time.monotonic() + 10
            while (refused := await client.get("/v1/methods")).status_code == 200:
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")
            ready = await client.get("/readyz")
            assert ready.status_code == 503
            return [await task for task in under_way]

    for answer in asyncio.run(stop()):
        assert answer.status_code == 200, answer.text
        assert answer.json()["results"]


@pytest.fixture
def url(served: Server) -> str:
    return served.url


def random_queries(n: int, entities: int = 500) -> list[Query]:
    rng = np.random.default_rng(7)
    picks = [rng.choice(entities, 6, replace=False).tolist() for _ in range(n)]
    return [Query(f"q{i}", tuple(p[:3]), tuple(p[3:]), 5 + i) for i, p in enumerate(picks)]


def body(query: Query, method: str) -> dict[str, Any]:
    return {
        "id": query.id,
        "positive": [f"entity {i}" for i in query.positive],
        "negative": list(query.negative),
        "top_k": query.top_k,
        "method": method,
    }


def same(answer: dict[str, object], expected: Expansion, tolerance: float = 0) -> None:
    """Ids agree, and scores and evidence in every bit, or but for a relative ``tolerance``."""
    results = answer["results"]
    assert isinstance(results, list)
    assert [r["id"] for r in results] == expected.ranking.ids.tolist()
    scores = [np.float32(r["score"]) for r in results]
    np.testing.assert_allclose(scores, expected.ranking.scores, rtol=tolerance)
    for name, column in expected.ranking.evidence.items():
        got = np.array([r["evidence"][name] for r in results], np.float32)
        np.testing.assert_allclose(got, column, rtol=tolerance)


def test_concurrent_requests_get_the_local_runtimes_answers(url: str, bundle: Bundle) -> None:
    queries = random_queries(20)
    names = [m["name"] for m in httpx.get(f"{url}/v1/methods").json()["methods"]]
    assert "retexpan" in names
    # A random model's lists grow slowly, and its products depend on the batch in their last digits.
    generative = {name for name in names if "genexpan" in name or name == "composed"}
    asked = {name: queries[:2] if name in generative else queries for name in names}
    expected = {name: find_method(name).open(bundle)(some) for name, some in asked.items()}

    async def ask_all() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:

            async def ask(place: int, method: str) -> None:
                response = await client.post("/v1/expand", json=body(queries[place], method))
                assert response.status_code == 200, response.text
                same(response.json(), expected[method][place], 1e-4 if method in generative else 0)

            await asyncio.gather(*(ask(i, name) for name in names for i in range(len(asked[name]))))

    asyncio.run(ask_all())


def test_a_batch_gets_the_local_runtimes_answers(url: str, bundle: Bundle) -> None:
    queries = random_queries(80)
    expected = METHODS[METHOD].open(bundle)(queries)
    bodies: list[object] = [body(query, METHOD) for query in queries]
    bodies[40] = {"positive": ["who?"]}
    response = httpx.post(f"{url}/v1/expand/batch", json={"queries": bodies}, timeout=60)
    for place, (answer, one) in enumerate(zip(response.json()["results"], expected, strict=True)):
        if place == 40:
            assert answer["error"]["code"] == "unknown_entity"
        else:
            same(answer, one)


def test_each_query_of_a_batch_is_answered_by_its_own_options(url: str, bundle: Bundle) -> None:
    asked: dict[str, list[dict[str, float]]] = {
        OWN: [{}, {"Lift.by": 2.5}, {"Retrieve.k": 30, "Lift.by": 0.0}],
        METHOD: [{}, {"Retrieve.k": 30, "SegmentRerank.length": 9}, {"SegmentRerank.confidence": 0.2}],
    }
    names = [m["name"] for m in httpx.get(f"{url}/v1/methods").json()["methods"]]
    given = [(name, some) for name, several in asked.items() if name in names for some in several]
    assert METHOD in [name for name, _ in given]
    queries = random_queries(len(given))
    bodies = [body(q, name) | {"options": some} for q, (name, some) in zip(queries, given, strict=True)]
    results = httpx.post(f"{url}/v1/expand/batch", json={"queries": bodies}, timeout=60).json()["results"]
    for query, (name, some), answer in zip(queries, given, results, strict=True):
        (expected,) = change(find_method(name), some).open(bundle)([query])
        same(answer, expected)
        assert answer["options"] == some


@on_fused_alone
def test_errors_come_through_the_proxy_as_json_and_the_page_as_it_is(url: str) -> None:
    for content, status in [
        (b'{"positive": ["entty 1"]}', 422),
        (b'{"positive": [1], "method": "magic"}', 404),
        (b"{", 400),
        (b'{"positive": ["' + b"x" * (2 << 20) + b'"]}', 413),
    ]:
        response = httpx.post(
            f"{url}/v1/expand", content=content, headers={"content-type": "application/json"}
        )
        assert response.status_code == status
        assert response.json()["error"]["message"]
    assert httpx.get(f"{url}/-/healthz").status_code == 200
    page = httpx.get(f"{url}/page/page.css")
    assert page.headers["content-encoding"] == "gzip", "a large answer crosses the proxy compressed"
    assert page.text == (FOLDER / "page.css").read_text(encoding="utf-8")
    assert httpx.head(url).status_code == 200
    known = {"if-none-match": page.headers["etag"]}
    assert httpx.get(f"{url}/page/page.css", headers=known).status_code == 304
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    for given in ("mine", "not one", "x" * 65):
        kept = httpx.get(f"{url}/healthz", headers={"x-request-id": given}).headers.get_list("x-request-id")
        assert len(kept) == 1, "Serve adds an id of its own"
        assert (kept == [given]) == (given == "mine")
    assert httpx.get(f"{url}/healthz", headers={"host": "evil.example"}).status_code == 403
    assert httpx.get(f"{url}/healthz", headers={"x-long": "x" * (64 << 10)}).status_code == 431
    offer = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAEAAEAAAAIAAAAB"}
    with httpx.Client(headers=offer) as client:
        for _ in range(2):
            assert client.post(f"{url}/v1/expand", json={"positive": [1]}).status_code == 200


def test_what_a_method_is_asked_besides_is_the_same_as_in_one_process(url: str, bundle: Bundle) -> None:
    sentences = ("Nobody knows what Nova is.", "They went to Nova again.")
    query = Query(
        "q",
        (1, 2, -1),
        (3,),
        7,
        filters=(("parity", ("odd",)),),
        new=(NewEntity("Nova", sentences),),
    )
    pipeline = EncodeNewEntities() >> METHODS[METHOD] >> Explain(view="joint")
    (expected,) = pipeline.open(bundle)([query])
    asked = body(query, METHOD) | {
        "positive": [1, 2, {"name": "Nova", "sentences": sentences}],
        "filter": {"parity": ["odd"]},
        "explain": True,
    }
    answer = httpx.post(f"{url}/v1/expand", json=asked, timeout=60).json()
    results = answer["results"]
    assert [r["id"] for r in results] == expected.ranking.ids.tolist()
    assert all(r["id"] % 2 for r in results)
    nearest = expected.ranking.evidence["nearest_positive"].astype(int)
    names = ["entity 1", "entity 2", "Nova"]
    assert [r["explanation"]["nearest_positive"]["name"] for r in results] == [names[i] for i in nearest]
    assert all("entity" in r["explanation"]["sentences"][0]["text"] for r in results)
    neighbours = httpx.get(f"{url}/v1/entities/entity 5").json()["neighbours"]
    (local,) = Pipeline((Retrieve(view="joint"),)).open(bundle)([Query("n", (5,), top_k=10)])
    assert [n["id"] for n in neighbours] == local.ranking.ids.tolist()
    mapped = {key: asked[key] for key in ("positive", "negative")} | {"entities": [9, "entity 8"]}
    points = httpx.post(f"{url}/v1/map", json=mapped, timeout=60).json()["points"]
    assert [p["id"] for p in points] == [1, 2, 3, 9, 8]
    lies = {p["id"]: (p["x"], p["y"], p["off"]) for p in points}
    plane = principal_plane(open_index(bundle, "joint").vectors_of([1, 2, 3, 8, 9]))
    np.testing.assert_allclose([lies[i] for i in (1, 2, 3, 8, 9)], np.column_stack(plane), atol=1e-5)


def test_progress_comes_while_stages_pass_and_the_answer_last(url: str, bundle: Bundle) -> None:
    (query,) = random_queries(1)
    (expected,) = METHODS[METHOD].open(bundle)([query])
    with Client(url) as client:
        events = list(client.stream(**body(query, METHOD)))
    assert [name for name, _ in events] == ["stage", "stage", "answer"]
    assert [data["stage"] for _, data in events[:2]] == ["Retrieve", "SegmentRerank"]
    same(events[-1][1], expected)


@on_fused_alone
def test_a_set_and_the_audit_log_are_kept_each_by_one_deployment(url: str, bundle: Bundle) -> None:
    first, second = bundle.vocabulary.names[:2]
    made = httpx.post(f"{url}/v1/sets", json={"name": "a set"}).json()
    path = f"{url}/v1/sets/{made['id']}"
    change = {"version": 1, "change": {"kind": "judge", "accept": [first], "reject": [second]}}
    assert httpx.post(f"{path}/events", json=change).json()["version"] == 2
    refused = httpx.post(f"{path}/events", json=change)
    assert (refused.status_code, refused.json()["error"]["suggestions"]) == (409, ["2"])
    assert httpx.get(path).json()["accepted"][0]["name"] == first
    assert (bundle.folder.parent.parent / "sets" / "sets.sqlite").exists()
    assert httpx.get(f"{url}/v1/sets/{'0' * 32}").json()["error"]["code"] == "unknown_set"
    end, written = time.monotonic() + 20, list[dict[str, Any]]()
    while len(written) < 3:  # it is not waited for by what is asked
        assert time.monotonic() < end
        written = httpx.get(f"{url}/v1/audit?event=curated").json()["entries"]
        time.sleep(0.1)
    assert [one["status"] for one in written] == [409, 200, 200]
    assert written[0]["body"] == change


@on_fused_alone
def test_a_deadline_brings_what_there_is_and_names_what_is_missing(url: str) -> None:
    asked = {"positive": [1], "negative": [2], "method": "retexpan+genexpan", "deadline_ms": 100}
    answer = httpx.post(f"{url}/v1/expand", json=asked, timeout=60).json()
    assert answer["degraded"]
    assert answer["degraded"][0].startswith("Generate: ")


@on_fused_alone
def test_what_is_too_large_or_too_slow_is_refused_and_harms_nobody(url: str, bundle: Bundle) -> None:
    host, port = url.removeprefix("http://").split(":")
    with (
        socket.create_connection((host, int(port))) as slow,
        socket.create_connection((host, int(port))) as slower,
    ):
        head = f"POST /v1/expand HTTP/1.1\r\nHost: {host}\r\n"
        head += "Content-Type: application/json\r\nContent-Length: 40\r\n"
        slow.sendall(f"{head}\r\n{{".encode())
        slower.sendall(head.encode())  # its headers never end
        large = httpx.post(f"{url}/v1/expand", content=b" " * 10_000_000)
        assert (large.status_code, large.json()["error"]["code"]) == (413, "too_large")
        many = httpx.post(f"{url}/v1/expand", json={"positive": list(range(10_000))})
        assert (many.status_code, many.json()["error"]["field"]) == (422, "positive")
        (query,) = random_queries(1)
        (expected,) = METHODS[METHOD].open(bundle)([query])
        same(httpx.post(f"{url}/v1/expand", json=body(query, METHOD)).json(), expected)
        slow.settimeout(10)
        with slow.makefile("rb") as answer:
            assert b" 408 " in answer.readline()
        slower.settimeout(10)
        assert slower.recv(1000) == b""


async def under_load(
    url: str, queries: Sequence[Query], rounds: int, act: Callable[[], None]
) -> list[tuple[int, dict[str, Any]]]:
    """Ask each query so many times by four clients; act after a third. Returns (query's place, answer)."""
    answers: list[tuple[int, dict[str, Any]]] = []
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        gate = asyncio.Semaphore(4)

        async def ask(place: int, acts: bool) -> None:
            async with gate:
                if acts:
                    await asyncio.to_thread(act)
                response = await client.post("/v1/expand", json=body(queries[place], METHOD))
            assert response.status_code == 200, response.text
            answers.append((place, response.json()))

        order = [place for _ in range(rounds) for place in range(len(queries))]
        await asyncio.gather(*(ask(p, number == len(order) // 3) for number, p in enumerate(order)))
    return answers


def test_a_new_bundle_is_taken_under_load_and_no_answer_is_of_two(
    url: str, bundles: tuple[Bundle, Bundle]
) -> None:
    queries = random_queries(40)
    expected = {b.id: METHODS[METHOD].open(b)(queries) for b in bundles}
    workspace = Workspace.open(bundles[0].folder.parent.parent)

    def move(to: Bundle) -> None:
        point_to(workspace, to.id)
        end = time.monotonic() + 60
        while httpx.get(f"{url}/v1/bundle").json()["id"] != to.id:
            assert time.monotonic() < end
            time.sleep(0.1)

    for to in (bundles[1], bundles[0]):
        answers = asyncio.run(under_load(url, queries, 3, partial(move, to)))
        for place, answer in answers:
            same(answer, expected[answer["bundle"]][place])
        assert {answer["bundle"] for _, answer in answers} == set(expected)


@on_fused_alone
def test_a_bad_bundle_is_refused_and_the_old_one_serves_on(url: str, bundle: Bundle) -> None:
    workspace = Workspace.open(bundle.folder.parent.parent)
    pointer = workspace.bundles / "CURRENT"
    pointer.write_bytes(b"0123456789abcdef\n")
    try:
        end = time.monotonic() + 30
        while not (refused := httpx.get(f"{url}/v1/bundle").json()["refused"]):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert refused["id"] == "0123456789abcdef"
        assert "no such bundle" in refused["reason"]
        assert httpx.post(f"{url}/v1/expand", json={"positive": [1]}).json()["bundle"] == bundle.id
        assert httpx.get(f"{url}/readyz").json()["ready"]
    finally:
        pointer.write_bytes(f"{bundle.id}\n".encode())


@on_fused_alone
def test_rows_of_a_table_are_answered_as_the_service_does(
    served: Server, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.workers.executor.has_cluster", lambda: False)
    quick = ("retexpan", "retexpan+cds", "default")
    rows = [drawn(number, bundle, quick, ("composed",)) for number in range(60)]  # one in two is refused
    body = {"queries": [as_request(row) for row in rows]}
    answer = httpx.post(f"{served.url}/v1/expand/batch", json=body, timeout=120)
    asked = {one["id"]: one for one in answer.json()["results"]}
    assert list(compared(asked, bundle, rows, tmp_path)).count("answered") > 20


@pytest.mark.faults
@pytest.mark.parametrize("served", ["per-stage"], indirect=True)
def test_no_query_is_lost_when_a_replica_is_killed(served: Server, bundle: Bundle) -> None:
    queries = random_queries(40)
    expected = METHODS[METHOD].open(bundle)(queries)
    for stage in ("Retrieve", "Index-1-of-2", "Ingress"):
        victim = served.replicas(stage)[0]
        for place, answer in asyncio.run(under_load(served.url, queries, 3, victim.kill)):
            same(answer, expected[place])
