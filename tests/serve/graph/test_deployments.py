"""A stage deployment's replica, without Ray: replies, progress, deadlines, bundles opened under way."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BundleError
from engine.methods import METHODS
from engine.query import Deadline, Expansion, Query
from engine.storage.bundle import Bundle
from serve.graph import deployments as hosts
from serve.graph.deployments import ShardHost, StageHost
from serve.graph.plan import plan
from serve.messages import Failure, Reply, RoundDone, StageDone, Task
from serve.settings import ServeSettings
from tests.support.bundles import method_bundle

METHOD = {"retexpan+genexpan": METHODS["retexpan+genexpan"]}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    root = tmp_path_factory.mktemp("hosts")
    return method_bundle(root, n=100), method_bundle(root, n=100, seed=1)


@pytest.fixture(autouse=True)
def logs_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replica's process has logs of its own; this one is the tests'."""
    monkeypatch.setattr(hosts, "configure_logs", lambda: None)


def run(
    two: tuple[Bundle, Bundle], test: Callable[[StageHost, tuple[int, ...]], Coroutine[Any, Any, None]]
) -> None:
    """Run a test against a replica that was started with the first bundle, the second being current."""

    async def go() -> None:
        settings = ServeSettings(workspace=str(two[0].folder.parent.parent))
        made = plan(two[0], METHOD, settings)
        host = StageHost.__new__(StageHost)
        await host.__init__(settings, two[0].id, made.deployments[0])  # type: ignore[misc]
        ((_, chain),) = made.calls("retexpan+genexpan")
        await test(host, chain)

    asyncio.run(go())


def task(bundle: Bundle, chain: tuple[int, ...], seconds: float = 60) -> Task:
    return Task(
        bundle.id, chain, [Expansion(Query("q", (1, 2), (3,), 10, deadline=Deadline.within(seconds)))], "r"
    )


def test_a_task_is_answered_from_the_bundle_that_it_names(two: tuple[Bundle, Bundle]) -> None:
    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        replies = await asyncio.gather(*(host.run(task(bundle, chain)) for bundle in two))
        for bundle, reply in zip(two, replies, strict=True):
            (local,) = METHOD["retexpan+genexpan"].open(bundle)([Query("q", (1, 2), (3,), 10)])
            (outcome,) = reply.outcomes
            assert isinstance(outcome, Expansion)
            assert outcome.ranking.head(10).ids.tolist() == local.ranking.ids.tolist()
            assert [s.stage for s in reply.stats] == ["Retrieve", "Generate", "SegmentRerank"]

    run(two, test)


def test_progress_comes_before_the_reply(two: tuple[Bundle, Bundle]) -> None:
    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        *steps, reply = [one async for one in host.stream(task(two[0], chain))]
        assert isinstance(reply, Reply)
        assert isinstance(steps[0], StageDone)
        assert {type(one) for one in steps[1:-2]} == {RoundDone}
        assert [one.stage for one in steps if isinstance(one, StageDone)] == [
            "Retrieve",
            "Generate",
            "SegmentRerank",
        ]

    run(two, test)


def test_at_the_deadline_comes_what_there_is(two: tuple[Bundle, Bundle]) -> None:
    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        await host.run(task(two[0], chain))
        (outcome,) = (await host.run(task(two[0], chain, seconds=0.02))).outcomes
        assert isinstance(outcome, Expansion)
        assert len(outcome.ranking)
        assert outcome.degraded[0].startswith("Generate: ")
        (late,) = (await host.run(task(two[0], chain, seconds=-1))).outcomes
        assert isinstance(late, Failure)
        assert late.status == 504

    run(two, test)


def test_a_replica_whose_thread_has_ended_says_that_it_is_ill(two: tuple[Bundle, Bundle]) -> None:
    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        host.check_health()
        host._runner.close()
        with pytest.raises(RuntimeError, match="thread"):
            host.check_health()

    run(two, test)


def test_a_listener_that_goes_away_ends_its_work(two: tuple[Bundle, Bundle]) -> None:
    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        stream = host.stream(task(two[0], chain))
        await anext(stream)
        assert isinstance(stream, AsyncGenerator)
        await stream.aclose()
        started = time.monotonic()
        await host.run(task(two[0], chain[:1]))
        assert time.monotonic() - started < 5

    run(two, test)


def test_a_bundle_that_is_not_whole_is_a_complaint_and_another_still_answers(
    two: tuple[Bundle, Bundle], tmp_path: Path
) -> None:
    broken = two[0].folder.parent / "0000000000000000"
    shutil.copytree(two[0].folder, broken)
    (broken / "manifest.json").write_text(
        (broken / "manifest.json").read_text().replace(two[0].id, "0000000000000000")
    )
    (broken / "trie" / "tokens.npy").write_bytes(b"")

    async def test(host: StageHost, chain: tuple[int, ...]) -> None:
        assert "tokens.npy" in await host.prepare("0000000000000000")
        told = await host.ping("nowhere")
        assert "no such bundle" in told
        with pytest.raises(BundleError) as caught:
            await host.run(replace(task(two[0], chain), bundle="nowhere"))
        assert str(caught.value) == told
        assert str(broken.parent) not in told
        assert await host.prepare(two[1].id) == ""
        assert await host.ping(two[0].id) == "ok"

    try:
        run(two, test)
    finally:
        shutil.rmtree(broken)


def test_a_shard_answers_for_its_part_of_every_view(two: tuple[Bundle, Bundle]) -> None:
    async def go() -> None:
        settings = ServeSettings(workspace=str(two[0].folder.parent.parent), index_shards=3)
        spec = plan(two[0], METHOD, settings).deployments[-1]
        host = ShardHost.__new__(ShardHost)
        await host.__init__(settings, two[0].id, spec)  # type: ignore[misc]
        for view in ("mask", "joint"):
            (rows,) = await host.ask(two[0].id, view, [("rows", ())])
            assert (rows.first, rows.end) == (66, 100)

    asyncio.run(go())
