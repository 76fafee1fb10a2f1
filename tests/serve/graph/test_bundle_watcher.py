"""Following the current bundle: all or nothing, refusals, going back; bundles that a replica holds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.errors import BundleError
from engine.storage.bundle import Manifest
from serve.graph import bundle_watcher as bundle_watcher
from serve.graph.bundle_cache import BundleCache
from serve.graph.bundle_watcher import BundleWatcher
from serve.telemetry.metrics import Metrics


@dataclass
class Snapshot:
    manifest: Manifest

    @property
    def id(self) -> str:
        return self.manifest.id


@dataclass
class Service:
    snapshot: Snapshot
    refused: tuple[str, str] | None = None


def snapshot(name: str) -> Snapshot:
    return Snapshot(Manifest(id=name, created="2026-01-01T00:00:00", files={}))


@dataclass
class World:
    """A workspace whose pointer the test moves, and replicas that the test makes fail."""

    current: str = "a"
    bad: dict[str, str] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.service = Service(snapshot("a"))
        self.metrics = Metrics()
        self.watcher = BundleWatcher(
            self.service,  # type: ignore[arg-type]
            self.metrics,
            lambda: self.current,
            self.open,  # type: ignore[arg-type]
            self.prepare,
        )

    def open(self, bundle_id: str) -> Snapshot:
        if bundle_id in self.broken:
            raise BundleError(f"bundle {bundle_id}: a file fails its checksum")
        return snapshot(bundle_id)

    async def prepare(self, bundle_id: str) -> dict[str, str]:
        self.asked.append(bundle_id)
        return {"Retrieve": "", "Generate": self.bad.get(bundle_id, "")}

    def check(self) -> str:
        asyncio.run(self.watcher.check())
        return self.service.snapshot.id

    def refused(self) -> tuple[str, str] | None:
        return self.service.refused

    def swaps(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("seedset_bundle_swaps_total", {"result": result}) or 0


def test_a_new_bundle_is_served_once_every_stage_has_it() -> None:
    world = World()
    assert world.check() == "a"
    world.current = "b"
    assert world.check() == "b"
    assert world.asked == ["b"]
    assert world.check() == "b"
    assert world.asked == ["b"], "what is served is not prepared again"
    world.current = "a"
    assert world.check() == "a", "pointing back is the way back"
    assert (world.swaps("served"), world.swaps("refused")) == (2, 0)


def test_a_bundle_that_one_stage_cannot_open_is_refused_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(bad={"b": "no lm"}, current="b")
    assert world.check() == "a"
    assert world.refused() == ("b", "Generate: no lm")
    world.check()
    assert world.asked == ["b"], "not tried again at once"
    monkeypatch.setattr(bundle_watcher, "RETRY_S", 0.0)
    world.bad.clear()
    assert world.check() == "b", "but later: it may have been published anew"
    assert world.refused() is None
    assert world.swaps("refused") == 1


def test_a_bundle_that_is_not_whole_is_refused_before_any_stage_is_asked() -> None:
    world = World(broken={"b"}, current="b")
    assert world.check() == "a"
    assert world.refused() == ("b", "bundle b: a file fails its checksum")
    assert world.asked == []
    world.current = "a"
    world.check()
    assert world.refused() is None
    world.current = "c"
    assert world.check() == "c"


def test_watching_goes_on_after_what_it_did_not_expect(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    failures = iter([OSError("the bucket is away")])

    def current() -> str:
        if failure := next(failures, None):
            raise failure
        return "b"

    world.watcher._current = current

    async def run() -> None:
        watching = asyncio.create_task(world.watcher.watch(0.01))
        for _ in range(100):
            await asyncio.sleep(0.01)
            if world.service.snapshot.id == "b":
                break
        watching.cancel()

    asyncio.run(run())
    assert world.service.snapshot.id == "b"
    assert "the bucket is away" in caplog.text


def test_a_bundle_cache_opens_each_bundle_once_for_all_who_wait() -> None:
    opened: list[str] = []

    def open_(bundle_id: str) -> str:
        opened.append(bundle_id)
        return bundle_id.upper()

    async def run() -> list[str]:
        cache = BundleCache(open_)
        return list(await asyncio.gather(*(cache.get("a") for _ in range(5)), cache.get("b")))

    assert asyncio.run(run()) == ["A"] * 5 + ["B"]
    assert opened == ["a", "b"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bundle_cache_lets_go_of_what_is_old_and_idle_but_never_of_the_newest() -> None:
    async def run() -> list[list[str]]:
        clock = Clock()
        cache = BundleCache(str.upper, keep_s=60, clock=clock)
        seen = []
        await cache.prepare("a")
        await cache.prepare("b")
        seen.append(cache.ids)
        clock.now = 40
        await cache.get("a")  # a request of the old snapshot is still under way
        clock.now = 80
        cache.sweep()
        seen.append(cache.ids)
        clock.now = 200
        cache.sweep()
        seen.append(cache.ids)
        assert await cache.get("a") == "A", "what was let go is opened again when it is asked for"
        return seen

    assert asyncio.run(run()) == [["a", "b"], ["a", "b"], ["b"]]


def test_a_bundle_that_took_longer_to_open_than_an_idle_one_is_kept_stays_open() -> None:
    async def run() -> list[str]:
        clock = Clock()

        def open_(bundle_id: str) -> str:
            clock.now += 100
            return bundle_id

        cache = BundleCache(open_, keep_s=60, clock=clock)
        await cache.prepare("a")
        return cache.ids

    assert asyncio.run(run()) == ["a"]


def test_a_bundle_cache_checks_by_itself_for_what_to_let_go() -> None:
    async def run() -> list[str]:
        cache = BundleCache(str.upper, keep_s=0.01)
        await cache.prepare("a")
        await cache.prepare("b")
        async with asyncio.timeout(10):
            while len(cache.ids) > 1:
                await asyncio.sleep(0.005)
        return cache.ids

    assert asyncio.run(run()) == ["b"]


def test_a_bundle_cache_tries_again_what_failed_and_one_impatient_caller_stops_nobody() -> None:
    failures: Any = iter([BundleError("not there yet")])

    def open_(bundle_id: str) -> str:
        if failure := next(failures, None):
            raise failure
        return bundle_id.upper()

    async def run() -> str:
        cache = BundleCache(open_)
        with pytest.raises(BundleError):
            await cache.get("a")
        impatient = asyncio.create_task(cache.get("a"))
        patient = asyncio.create_task(cache.get("a"))
        await asyncio.sleep(0)
        impatient.cancel()
        return await patient

    assert asyncio.run(run()) == "A"


def test_a_pointer_that_is_gone_is_told_once_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    failures = iter([BundleError("no bundle was published yet")] * 3)

    def current() -> str:
        if failure := next(failures, None):
            raise failure
        return "b"

    world.watcher._current = current

    async def watch() -> None:
        watching = asyncio.create_task(world.watcher.watch(0.001))
        while world.service.snapshot.id != "b":
            await asyncio.sleep(0.001)
        watching.cancel()

    with caplog.at_level("ERROR"):
        asyncio.run(watch())
    (told,) = caplog.records
    assert told.getMessage() == "no current bundle"
    assert told.exc_info is None
