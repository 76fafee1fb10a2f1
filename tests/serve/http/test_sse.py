"""Server-sent events as they cross a real connection."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import httpx
import numpy as np
import pytest

from engine.query import Expansion, Ranking
from serve.http.routes import create_app
from serve.http.sse import Event, frames
from serve.messages import Outcome, Progress, StageDone
from tests.support.services import MakeService, running


class Slow:
    """A dispatch that says each second stage only when a test lets it, and notes that it was closed."""

    def __init__(self) -> None:
        self.go_on, self.closed = threading.Event(), threading.Event()

    async def __call__(
        self, route: str, bundle: str, expansions: Sequence[Expansion], request_id: str
    ) -> list[Outcome]:
        raise NotImplementedError

    async def stream(
        self, route: str, bundle: str, expansion: Expansion, request_id: str
    ) -> AsyncIterator[Progress | Outcome]:
        try:
            yield StageDone("Retrieve", 0.1, 5)
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)
            yield StageDone("SegmentRerank", 0.1, 5)
            yield Expansion(expansion.query, Ranking(np.array([5], np.int32), np.array([1], np.float32)))
        finally:
            self.closed.set()


def test_events_come_while_the_query_is_answered(make_service: MakeService) -> None:
    dispatch = Slow()
    body = {"positive": [1]}
    with (
        running(create_app(make_service(dispatch))) as url,
        httpx.stream("POST", f"{url}/v1/expand/stream", json=body, timeout=10) as response,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        assert "gzip" in response.request.headers["accept-encoding"]
        assert "content-encoding" not in response.headers, "compressing would hold events back"
        assert response.headers["x-request-id"]
        lines = response.iter_lines()
        assert next(lines) == "event: stage"
        assert json.loads(next(lines).removeprefix("data: "))["stage"] == "Retrieve"
        assert not dispatch.go_on.is_set(), "the second stage had not begun"
        dispatch.go_on.set()
        rest = [line for line in lines if line]
    assert [line for line in rest if line.startswith("event")] == ["event: stage", "event: answer"]
    assert json.loads(rest[-1].removeprefix("data: "))["results"][0]["name"] == "entity 5"


def test_who_leaves_ends_the_query(make_service: MakeService) -> None:
    dispatch = Slow()
    with running(create_app(make_service(dispatch))) as url:
        with httpx.stream("POST", f"{url}/v1/expand/stream", json={"positive": [1]}) as response:
            lines = response.iter_lines()
            assert next(lines) == "event: stage"
            assert not dispatch.closed.is_set()
        assert dispatch.closed.wait(5)
        assert not dispatch.go_on.is_set()


def test_what_is_wrong_with_the_request_is_an_ordinary_error(make_service: MakeService) -> None:
    with running(create_app(make_service(Slow()))) as url:
        response = httpx.post(f"{url}/v1/expand/stream", json={"positive": ["entty 1"]})
    assert (response.status_code, response.json()["error"]["field"]) == (422, "positive.0")


def collect(source: AsyncGenerator[Event, None], keep_alive_s: float) -> list[bytes]:
    async def read() -> list[bytes]:
        return [chunk async for chunk in frames(source, keep_alive_s)]

    return asyncio.run(read())


def test_comments_come_while_nothing_happens() -> None:
    async def read() -> list[bytes]:
        goes_on = asyncio.Event()

        async def source() -> AsyncGenerator[Event, None]:
            yield "stage", {"text": "a\nb\u2028"}
            await goes_on.wait()
            yield "answer", 1

        found = []
        async for chunk in frames(source(), 0.01):
            found.append(chunk)
            if len(found) == 3:  # two comments
                goes_on.set()
        return found

    chunks = asyncio.run(read())
    assert chunks[0] == 'event: stage\ndata: {"text":"a\\nb\u2028"}\n\n'.encode()
    assert chunks[-1] == b"event: answer\ndata: 1\n\n"
    assert set(chunks[1:-1]) == {b": keep-alive\n\n"}


def test_all_steps_of_a_source_are_taken_by_one_task() -> None:
    tasks = set()

    async def source() -> AsyncGenerator[Event, None]:
        async with asyncio.timeout(5):
            for n in range(3):
                tasks.add(asyncio.current_task())
                yield "stage", n
                await asyncio.sleep(0)

    assert len(collect(source(), 1)) == 3
    assert len(tasks) == 1


def test_an_error_of_the_source_is_raised_after_what_came() -> None:
    seen: list[bytes] = []

    async def source() -> AsyncGenerator[Event, None]:
        yield "stage", 1
        raise ZeroDivisionError

    async def read() -> None:
        async for chunk in frames(source()):
            seen.append(chunk)

    with pytest.raises(ZeroDivisionError):
        asyncio.run(read())
    assert len(seen) == 1


def test_frames_that_nobody_reads_any_more_close_their_source() -> None:
    closed = threading.Event()

    async def source() -> AsyncGenerator[Event, None]:
        try:
            yield "stage", 1
            await asyncio.sleep(60)
        finally:
            closed.set()

    async def read() -> None:
        chunks = frames(source())
        await anext(chunks)
        await chunks.aclose()

    started = time.perf_counter()
    asyncio.run(read())
    assert closed.is_set()
    assert time.perf_counter() - started < 5
