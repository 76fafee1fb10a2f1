"""Load shedding in the proxy: only what would be refused anyway, and only as long."""

from __future__ import annotations

import asyncio
from typing import Any

from serve.proxy.load_shedding import LEAST, K, LoadShedder


class Proxy:
    """An application that takes ``capacity`` requests a second behind a load shedder, with its own clock."""

    def __init__(self, capacity: int, path: str = "/v1/expand") -> None:
        self.now = 0.0
        self.capacity, self.path = capacity, path
        self.asked = 0
        self._room, self._then = 0.0, 0.0
        self._shedder = LoadShedder(self._application, lambda: self.now)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        # It takes them as they come, with room for a tenth of a second.
        room = self._room + (self.now - self._then) * self.capacity
        self._room, self._then = min(room, self.capacity / 10), self.now
        status = 200 if self._room >= 1 else 503
        self._room -= status == 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def second(self, requests: int) -> tuple[int, int]:
        """Send so many requests in a second; returns how many were answered, and how many passed on."""
        answered, before = 0, self.asked
        start = int(self.now)
        for number in range(requests):
            self.now = start + number / requests
            sent: list[dict[str, Any]] = []

            async def send(message: dict[str, Any], sent: list[dict[str, Any]] = sent) -> None:
                sent.append(message)

            asyncio.run(self._shedder({"type": "http", "path": self.path}, None, send))  # type: ignore[arg-type]
            answered += sent[0]["status"] == 200
            if sent[0]["status"] == 503 and sent[0]["headers"]:
                assert dict(sent[0]["headers"])[b"retry-after"] == b"1"
                assert b'"code":"overloaded"' in sent[1]["body"]
        self.now = start + 1
        return answered, self.asked - before


def test_below_capacity_nobody_is_refused() -> None:
    proxy = Proxy(100)
    proxy.second(10)
    assert [proxy.second(90) for _ in range(5)] == [(90, 90)] * 5


def test_beyond_capacity_the_application_is_asked_for_a_little_more_than_it_takes() -> None:
    proxy = Proxy(100)
    seconds = [proxy.second(400) for _ in range(8)]
    assert seconds[0][1] > 200, "at first nothing is known"
    for answered, asked in seconds[2:]:
        assert answered >= 80
        assert asked <= 1.2 * K * 100


def test_when_the_crowd_is_gone_everybody_is_let_in_again() -> None:
    proxy = Proxy(100)
    for _ in range(5):
        proxy.second(400)
    proxy.second(90)
    assert proxy.second(90) == (90, 90)


def test_a_application_that_refused_everything_is_tried_again() -> None:
    proxy = Proxy(0)
    for _ in range(5):
        proxy.second(100)
    proxy.capacity = 1000
    recovered = [proxy.second(100)[0] for _ in range(6)]
    assert recovered[-1] == 100


def test_few_refusals_and_other_paths_are_none_of_its_business() -> None:
    proxy = Proxy(0)
    assert [proxy.second(LEAST - 1)[1] for _ in range(3)] == [LEAST - 1] * 3
    other = Proxy(0, "/v1/entities")
    assert [other.second(100)[1] for _ in range(3)] == [100] * 3
    other = Proxy(0, "/v1/entities/v1")
    assert other.second(100)[1] == 100
    behind = Proxy(0, "/a/prefix/v1/expand/batch")
    assert behind.second(100)[1] < 100, "the prefix of the application does not matter"
