"""One real Serve application over HTTP: the local answers, mixed batches, a killed replica.

It runs in a process of its own, started as a user starts it: Ray connects once a process.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from engine.bundle import Bundle
from engine.methods import METHODS
from engine.query import Expansion, Query
from tests.support.submit import ROOT

pytestmark = pytest.mark.slow
METHOD = "retexpan"
START_SECONDS = 150


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Server:
    """A running ``python -m serve.run``."""

    url: str
    process: subprocess.Popen[str]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas."""
        title = f"ray::ServeReplica:seedset:{deployment}"
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if title in " ".join(_title(child))]


def _title(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # gone, or not yet there
        return []


@contextmanager
def server(workspace: Path, log: Path, *options: str) -> Iterator[Server]:
    """Run ``python -m serve.run`` while the block runs; its output goes to a file, so it never blocks."""
    port = free_port()
    command = [sys.executable, "-m", "serve.run", "--workspace", str(workspace), f"--port={port}"]
    with log.open("w") as sink:
        process = subprocess.Popen([*command, *options], cwd=ROOT, stdout=sink, stderr=sink, text=True)
    try:
        end = time.monotonic() + START_SECONDS
        while "serving at" not in log.read_text(encoding="utf-8"):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < end, log.read_text(encoding="utf-8")
            time.sleep(0.2)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.fixture(scope="module", params=["fused", "per-stage"])
def served(
    request: pytest.FixtureRequest, workspace: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    options = ["--per-stage", "--replicas=2", "--methods=retexpan,default"]
    if request.param == "fused":
        options = ["--methods=retexpan,retexpan+cds,default,retexpan+lm-rerank,retexpan+genexpan"]
    log = tmp_path_factory.mktemp("served") / "log"
    with server(workspace, log, *options, "--set=num_cpus=0.2") as running:
        yield running
    assert running.process.returncode == 0, log.read_text(encoding="utf-8")


@pytest.fixture
def url(served: Server) -> str:
    return served.url


def random_queries(n: int, entities: int = 500) -> list[Query]:
    rng = np.random.default_rng(7)
    picks = [rng.choice(entities, 6, replace=False).tolist() for _ in range(n)]
    return [Query(f"q{i}", tuple(p[:3]), tuple(p[3:]), 5 + i) for i, p in enumerate(picks)]


def body(query: Query, method: str) -> dict[str, object]:
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
        got = np.float32([r["evidence"][name] for r in results])
        np.testing.assert_allclose(got, column, rtol=tolerance)


def test_concurrent_requests_get_the_local_runtimes_answers(url: str, bundle: Bundle) -> None:
    queries = random_queries(20)
    names = [m["name"] for m in httpx.get(f"{url}/v1/methods").json()["methods"]]
    assert {"retexpan", "default"} <= set(names)
    # A random model's lists grow slowly, and its products depend on the batch in their last digits.
    generative = {name for name in names if "genexpan" in name or "lm-" in name}
    asked = {name: queries[:2] if name in generative else queries for name in names}
    expected = {name: METHODS[name].open(bundle)(some) for name, some in asked.items()}

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
            assert answer["error"]["type"] == "unknown_entity"
        else:
            same(answer, one)


def test_errors_come_through_the_proxy_as_json(url: str) -> None:
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
    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"


def test_no_query_is_lost_when_a_replica_is_killed(served: Server, bundle: Bundle) -> None:
    queries = random_queries(40)
    expected = METHODS[METHOD].open(bundle)(queries)

    async def ask_all() -> None:
        async with httpx.AsyncClient(base_url=served.url, timeout=60) as client:
            gate = asyncio.Semaphore(4)

            async def ask(round_: int, place: int) -> None:
                async with gate:
                    if (round_, place) == (1, 0):
                        victims = served.replicas("Pipeline") + served.replicas("Retrieve")
                        victims[0].kill()
                    response = await client.post("/v1/expand", json=body(queries[place], METHOD))
                assert response.status_code == 200, response.text
                same(response.json(), expected[place])

            await asyncio.gather(*(ask(r, i) for r in range(5) for i in range(len(queries))))

    asyncio.run(ask_all())
