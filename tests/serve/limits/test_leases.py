"""Accounts that several replicas share, against one process that counts: within the stated bounds."""

from __future__ import annotations

import asyncio
import pickle
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import RayActorError
from ray.serve.handle import DeploymentHandle

from serve.errors import UnavailableError
from serve.limits.accounts import Accounts
from serve.limits.host import LimitsHost, is_shared, leases
from serve.limits.leases import AWAY_S, DENIED_S, LEASE_S, Lease, LeaseBook, Leases, lease_size
from serve.settings import ServeSettings

CALLER = "a"


class World:
    """Replicas that share one account, with a clock that goes when a test says so."""

    def __init__(self, rate: float, burst: int, replicas: int) -> None:
        self.rate, self.burst, self.size = rate, burst, lease_size(burst, replicas)
        self.now, self.asked, self.away = 0.0, 0, False
        self.start()
        self.replicas = [Leases(self.ask, rate, burst, replicas, lambda: self.now) for _ in range(replicas)]

    def start(self) -> None:
        """Begin to count anew."""
        self.book = LeaseBook(Accounts(self.rate, self.burst, lambda: self.now), self.size)

    async def ask(self, caller: str, queries: int, needed: int, back: int) -> Lease:
        self.asked += 1
        if self.away:
            raise UnavailableError("away")
        return self.book.lease(caller, queries, needed, back)

    async def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for one in self.replicas:
            if CALLER in one._held:
                await one.give_back(CALLER)


calls_of = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.05, 0.3, 1.1, 5.0]), st.integers(0, 3), st.integers(1, 30)),
    max_size=60,
)


@given(calls_of, st.integers(2, 4), st.sampled_from([1, 8, 40]), st.sampled_from([0.5, 4.0, 50.0]))
def test_shared_accounts_admit_what_one_account_does_within_the_bounds(
    calls: list[tuple[float, int, int]], replicas: int, burst: int, rate: float
) -> None:
    world = World(rate, burst, replicas)
    plain = Accounts(rate, burst, lambda: world.now)  # of what is admitted
    admitted: list[tuple[float, int]] = []

    async def ask() -> None:
        for pause, place, queries in calls:
            await world.pass_time(pause)
            level = plain.level(CALLER)
            wait = await world.replicas[place % replicas].spend(CALLER, queries)
            if wait:
                others = (replicas - 1) * world.size
                assert level < min(queries, burst) + others + DENIED_S * rate + 1e-6, "refused too early"
                continue
            admitted.append((world.now, queries))
            plain.take(CALLER, queries, float("-inf"))

    asyncio.run(ask())
    largest = max((queries for _, queries in admitted), default=0)
    for first, (start, _) in enumerate(admitted):
        let_in = sum(queries for _, queries in admitted[first:])
        more = 0 if first == 0 else replicas * world.size
        assert let_in <= burst + rate * (world.now - start) + largest + more + 1e-6
    assert sum(queries for _, queries in admitted) <= burst + rate * world.now + largest + 1e-6


def test_a_call_serves_a_lease_of_queries_and_refusals_cost_few() -> None:
    world = World(rate=1, burst=400, replicas=4)

    async def ask() -> None:
        for _ in range(40):
            for one in world.replicas:
                assert await one.spend(CALLER, 1) == 0
        assert world.asked == 4, "160 queries, 50 a lease"
        for one in world.replicas:
            while not await one.spend(CALLER, 1):
                pass
        world.asked = 0
        for _ in range(1000):
            world.now += 0.0005
            assert 0 < await world.replicas[0].spend(CALLER, 1) <= 1
        assert world.asked <= 0.5 / DENIED_S + 1

    asyncio.run(ask())


def test_what_one_replica_holds_goes_back_and_others_can_use_it() -> None:
    world = World(rate=0.001, burst=8, replicas=2)

    async def ask() -> None:
        first, second = world.replicas
        assert await first.spend(CALLER, 1) == 0  # and holds one more
        assert await second.spend(CALLER, 6) == 0
        assert await second.spend(CALLER, 1) > 0
        await world.pass_time(LEASE_S)
        assert await second.spend(CALLER, 1) == 0
        assert await first.spend(CALLER, 1) > 0

    asyncio.run(ask())


def test_it_goes_back_by_itself() -> None:
    asked: list[tuple[int, int]] = []

    async def book(caller: str, queries: int, needed: int, back: int) -> Lease:
        asked.append((queries, back))
        return Lease(3 if queries else 0, 0, 0)

    async def ask(monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("serve.limits.leases.LEASE_S", 0.02)
        one = Leases(book, 1, 8, 2)
        await one.spend(CALLER, 1)
        await one.spend(CALLER, 1)
        for _ in range(100):
            await asyncio.sleep(0.01)
            if len(asked) > 1:
                break

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(ask(patch))
    assert asked == [(1, 0), (0, 2)]


def test_requests_at_once_share_the_lease_that_the_first_brings() -> None:
    world = World(rate=1, burst=80, replicas=2)

    async def ask() -> None:
        waits = await asyncio.gather(*(world.replicas[0].spend(CALLER, 1) for _ in range(20)))
        assert waits == [0] * 20

    asyncio.run(ask())
    assert world.asked == 1


def test_a_batch_above_the_burst_leaves_a_debt_that_free_requests_see() -> None:
    world = World(rate=1, burst=8, replicas=2)

    async def ask() -> None:
        first, second = world.replicas
        assert await first.spend(CALLER, 0) == 0
        assert await first.spend(CALLER, 20) == 0
        assert await first.spend(CALLER, 0) == pytest.approx(12)
        assert await second.spend(CALLER, 1) == pytest.approx(13)
        assert await second.spend(CALLER, 0) == pytest.approx(12)
        await world.pass_time(13)
        assert await first.spend(CALLER, 0) == 0
        assert await second.spend(CALLER, 1) == 0

    asyncio.run(ask())


def test_while_nobody_counts_each_replica_counts_its_share_and_a_restart_costs_two_bursts() -> None:
    world = World(rate=1, burst=40, replicas=2)

    async def admitted() -> int:
        found = 0
        for one in world.replicas:
            while not await one.spend(CALLER, 1):
                found += 1
        return found

    async def ask() -> None:
        assert await admitted() == 40
        world.away = True
        await world.pass_time(LEASE_S)
        alone = await admitted()
        assert 2 <= alone <= 42
        asked = world.asked
        await world.pass_time(AWAY_S / 2)
        await admitted()
        assert world.asked == asked, "it is not asked again at once"
        world.away = False
        world.start()
        await world.pass_time(AWAY_S)
        assert await admitted() <= 42
        assert world.asked > asked

    asyncio.run(ask())


def handle_of(host: LimitsHost | None, hangs: bool = False) -> DeploymentHandle:
    """A handle that carries what it is given as Ray does; None: the replica is lost."""

    async def remote(*given: Any) -> Any:
        if hangs:
            await asyncio.sleep(10)
        if host is None:
            raise RayActorError
        return pickle.loads(pickle.dumps(await host.lease(*given)))

    return cast(DeploymentHandle, SimpleNamespace(lease=SimpleNamespace(remote=remote)))


def test_behind_a_handle_that_answers_that_is_lost_and_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.limits.host.ASK_S", 0.05)
    settings = ServeSettings(workspace="w", rate_per_minute=60, burst=8, ingress_replicas=2)
    assert is_shared(settings)
    assert not is_shared(settings.model_copy(update={"ingress_replicas": 1}))
    assert not is_shared(settings.model_copy(update={"rate_per_minute": None}))

    async def ask() -> None:
        host = LimitsHost(settings)
        first, second = (leases(settings, handle_of(host)) for _ in range(2))
        assert await first.spend(CALLER, 8) == 0
        assert await second.spend(CALLER, 1) == pytest.approx(1, abs=0.1)
        for away in (handle_of(None), handle_of(None, hangs=True)):
            alone = leases(settings, away)
            assert [await alone.spend(CALLER, 1) > 0 for _ in range(5)] == [False] * 4 + [True]

    asyncio.run(ask())
