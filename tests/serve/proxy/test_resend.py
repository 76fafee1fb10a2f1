"""What a replica that died left unanswered is asked again, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.proxy import resend as module
from serve.proxy.resend import Resender


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)


def ask(
    app: ASGIApp, method: str = "POST", path: str = "/v1/expand", body: tuple[bytes, ...] = (b"a", b"b")
) -> list[Message]:
    """Send a request through; return what came back."""
    arriving: list[Message] = [
        {"type": "http.request", "body": part, "more_body": place + 1 < len(body)}
        for place, part in enumerate(body)
    ]
    sent: list[Message] = []

    async def receive() -> Message:
        return arriving.pop(0) if arriving else await asyncio.Future()

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": []}
    asyncio.run(Resender(app)(scope, receive, send))
    return sent


class Dying:
    """An application that answers nothing the first times, having read the request or not."""

    def __init__(self, deaths: int, reads: bool = True) -> None:
        self.calls = 0
        self.bodies: list[bytes] = []
        self._deaths, self._reads = deaths, reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls += 1
        if self._reads or self.calls > self._deaths:
            body, more = b"", True
            while more:
                message = await receive()
                body += message["body"]
                more = message["more_body"]
            self.bodies.append(body)
        if self.calls > self._deaths:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("deaths", [0, 1, module.ATTEMPTS - 1])
def test_a_query_is_asked_again_whole(deaths: int, reads: bool) -> None:
    app = Dying(deaths, reads)
    answer = ask(app)
    assert [one.get("status") for one in answer] == [200, None]
    assert app.calls == deaths + 1
    assert set(app.bodies) == {b"ab"}


def test_a_query_that_kills_every_replica_is_503_in_the_services_words() -> None:
    app = Dying(100)
    start, body = ask(app)
    assert (start["status"], app.calls) == (503, module.ATTEMPTS)
    assert (b"retry-after", b"1") in start["headers"]
    assert b'"code":"unavailable"' in body["body"]


def test_so_is_one_whose_time_is_over() -> None:
    app, clock = Dying(100), iter(range(0, 1000, 20))
    resender = Resender(app, lambda: float(next(clock)))
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/expand", "headers": []}
    asyncio.run(resender(scope, receive, send))
    assert (sent[0]["status"], app.calls) == (503, 2)


@pytest.mark.parametrize(
    ("method", "path", "calls"),
    [
        ("GET", "/v1/bundle", 2),
        ("HEAD", "/", 2),
        ("POST", "/other", 1),
        ("DELETE", "/x", 1),
        ("PUT", "/v1/x", 1),
    ],
)
def test_what_may_change_something_elsewhere_is_not_repeated(method: str, path: str, calls: int) -> None:
    app = Dying(1)
    assert bool(ask(app, method, path)) == (calls == 2)
    assert app.calls == calls


def test_an_answer_that_has_begun_is_not_repeated() -> None:
    calls = 0

    async def cut(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal calls
        calls += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})

    assert len(ask(cut)) == 1
    assert calls == 1


def test_a_body_too_large_to_keep_and_a_caller_that_left_are_not_repeated() -> None:
    large = Dying(1)
    (start, _) = ask(large, body=(b"x" * (module.KEPT_BYTES - 1), b"xx", b"y"))
    assert (start["status"], large.calls) == (503, 1)
    calls: list[str] = []

    async def left(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((await receive())["type"])

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def nobody(message: Message) -> None:
        raise AssertionError("nobody listens")

    scope = {"type": "http", "method": "POST", "path": "/v1/expand", "headers": []}
    asyncio.run(Resender(left)(scope, gone, nobody))
    assert calls == ["http.disconnect"]


def test_other_protocols_pass() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    nothing: Callable[..., object] = lambda *_: None  # noqa: E731
    asyncio.run(Resender(app)({"type": "lifespan"}, nothing, nothing))  # type: ignore[arg-type]
    assert seen == ["lifespan"]
