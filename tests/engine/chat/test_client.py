"""Test the client against a stand-in that is slow, malformed, cut off, refuses, and says too much."""

from __future__ import annotations

import gzip
import json
import logging
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import pytest

from engine.chat.client import Account, ChatClient
from engine.chat.endpoint import HEADERS
from engine.chat.messages import Answer, ChatRequest, Message, Request
from engine.chat.settings import ChatDeadlineError, ChatError, ChatRefusalError, ChatSettings
from engine.query import Deadline
from tests.support.chat_server import KEY, ChatServer, FakeClock, Reply, completion, problem

ASKED = ChatRequest("stand-in", (Message("system", "json"), Message("user", "Größe?")), 50, seed=1)


def client_of(server: ChatServer, clock: FakeClock | None = None, **settings: object) -> ChatClient:
    given = {"url": server.url, "model": "stand-in", "key": KEY, "attempts": 3, **settings}
    return ChatClient(ChatSettings.model_validate(given), (clock or FakeClock()).clock)


class Kept(Account):
    """An account that keeps what it is told."""

    def __init__(self) -> None:
        self.settled: list[Answer | None] = []

    def known(self, request: Request[Answer], answer: Answer | None) -> None:
        self.settled.append(answer)


def test_a_prompt_is_sent_as_endpoints_take_it() -> None:
    with ChatServer([completion("Hi ü \ud800", refusal=None)]) as server:
        answer = client_of(server).ask(ASKED)
    assert (answer.content, answer.finish, answer.model) == ("Hi ü ?", "stop", "stand-in-1")
    assert (answer.prompt_tokens, answer.answer_tokens) == (100, 50)
    assert server.requests == [
        {
            "model": "stand-in",
            "messages": [{"role": "system", "content": "json"}, {"role": "user", "content": "Größe?"}],
            "max_tokens": 50,
            "temperature": 0.0,
            "seed": 1,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_without_a_key_none_is_sent_and_names_of_parameters_can_be_chosen() -> None:
    asked = ChatRequest(
        "m", (Message("user", "x"),), 5, temperature=None, tokens_field="max_completion_tokens"
    )
    with ChatServer([completion("Hi", usage=False)]) as server:
        answer = client_of(server, key="").ask(asked)
    assert answer.prompt_tokens is None
    assert "authorization" not in server.headers[0]
    assert server.requests[0] == {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "max_completion_tokens": 5,
    }


def test_the_library_reads_variables_of_its_own_and_none_changes_what_is_sent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = "sk-of-another-endpoint"
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", other)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"Authorization: Bearer {other}\nX-Other: {other}")
    caplog.set_level(logging.DEBUG)
    with ChatServer([GOOD]) as server:
        for key in (KEY, ""):
            assert client_of(server, key=key).ask(ASKED).content == "ok"
    assert [headers.pop("authorization", None) for headers in server.headers] == [f"Bearer {KEY}", None]
    assert server.headers[0].keys() | {"authorization"} == HEADERS
    assert other not in str(server.headers)
    assert KEY not in caplog.text, "logs hold no secret, however much they tell"


GOOD = completion("ok")
CUT = Reply(body=GOOD.body[:40], announced=len(GOOD.body))

PASSING: dict[str, tuple[Reply, list[float]]] = {
    "500": (problem(500), [0.5]),
    "520 of a proxy": (Reply(520), [0.5]),
    "503 in HTML": (Reply(503, b"<html>busy</html>"), [0.5]),
    "429 with seconds": (problem(429, retry_after="7"), [7]),
    "429 with a date": (problem(429, retry_after="Thu, 01 Jan 2026 00:00:09 GMT"), [9]),
    "429 with nonsense": (problem(429, retry_after="soon"), [0.5]),
    "dropped": (Reply(drop=True), [0.5]),
    "cut off": (CUT, [0.5]),
    "cut off under its own length": (Reply(body=GOOD.body[:40]), [0.5]),
    "not JSON": (Reply(body=b"<html>hello</html>"), [0.5]),
    "not UTF-8": (Reply(body=GOOD.body.replace(b"ok", b"\xff\xfe")), [0.5]),
    "no choice": (Reply(body=b'{"choices": []}'), [0.5]),
    "another form": (Reply(body=b'{"choices": [{"text": "ok"}]}'), [0.5]),
    "a list": (Reply(body=b"[]"), [0.5]),
    "deep": (Reply(body=b"[" * 100_000), [0.5]),
    "not compressed as it says": (Reply(body=b"x", headers={"content-encoding": "gzip"}), [0.5]),
    "a number of 5,000 digits": (Reply(body=b'{"choices": ' + b"1" * 5000 + b"}"), [0.5]),
}


@pytest.mark.parametrize("name", PASSING)
def test_what_may_pass_is_asked_again_after_a_pause(name: str) -> None:
    reply, pauses = PASSING[name]
    clock = FakeClock()
    with ChatServer([reply, GOOD]) as server:
        assert client_of(server, clock).ask(ASKED).content == "ok"
    assert len(server.requests) == 2
    assert clock.slept == pauses


def test_pauses_grow_and_end_after_all_attempts() -> None:
    clock = FakeClock()
    with (
        ChatServer([problem(500, message="broken")]) as server,
        pytest.raises(ChatError, match=r"status 500 \(broken\); asked 5 times"),
    ):
        client_of(server, clock, attempts=5, longest_pause=1.5).ask(ASKED)
    assert clock.slept == [0.5, 1.0, 1.5, 1.5]
    assert len(server.requests) == 5


REFUSED: dict[str, tuple[Reply, type[Exception], str]] = {
    "401": (
        problem(401, message=f"Incorrect API key: {KEY}"),
        ChatError,
        "401: the key is refused; check SEEDSET_CHAT_KEY",
    ),
    "403": (problem(403, message="no"), ChatError, "403: the key is refused"),
    "404": (
        problem(404, message="no such model"),
        ChatError,
        r"404 \(no such model\); check SEEDSET_CHAT_URL",
    ),
    "400": (problem(400, message="no seed"), ChatError, r"400 \(no seed\)"),
    "too long": (problem(400, "context_length_exceeded"), ChatRefusalError, "this prompt is not answered"),
    "too long, in words": (
        problem(400, message="exceeds the available context size"),
        ChatRefusalError,
        "this prompt is not answered",
    ),
    "422 of every prompt": (problem(422, message="extra inputs: seed"), ChatError, "the stage's settings"),
    "filtered": (problem(400, "content_filter"), ChatRefusalError, "this prompt is not answered"),
    "413": (Reply(413), ChatRefusalError, "status 413"),
    "spent": (problem(429, "insufficient_quota", "pay"), ChatError, r"429 \(pay\); .* nothing left to spend"),
    "patience": (problem(429, retry_after="3600"), ChatError, "asks to wait 3600 s"),
    "redirect": (
        Reply(307, headers={"location": "https://elsewhere.example/v1"}),
        ChatError,
        "redirects to elsewhere.example, where the key is not sent",
    ),
    "redirect to nowhere": (Reply(302, headers={"location": "http://["}), ChatError, "it redirects, where"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_pass_is_said_at_once_and_never_with_the_key(name: str) -> None:
    reply, kind, said = REFUSED[name]
    clock = FakeClock()
    with ChatServer([reply]) as server, pytest.raises(kind, match=said) as caught:
        client_of(server, clock).ask(ASKED)
    assert type(caught.value) is kind
    assert len(server.requests) == 1
    assert clock.slept == []
    assert KEY not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_error_that_repeats_the_key_is_shown_without_it() -> None:
    with (
        ChatServer([problem(404, message=f"no {KEY} here")]) as server,
        pytest.raises(ChatError, match=r"\(no … here\)"),
    ):
        client_of(server).ask(ASKED)


def test_an_answer_that_repeats_the_key_is_kept_without_it() -> None:
    with ChatServer([completion(f"no {KEY} here", refusal=KEY)]) as server:
        answer = client_of(server).ask(ASKED)
        assert (answer.content, answer.refusal) == ("no … here", "…")
        assert client_of(server, key="no").ask(ASKED).content == f"no {KEY} here", "a word is no secret"


LARGE = completion("x" * 5000)
COMPRESSED = Reply(body=gzip.compress(LARGE.body), headers={"content-encoding": "gzip"})


@pytest.mark.parametrize("reply", [LARGE, replace(LARGE, status=500), COMPRESSED])
def test_more_than_the_limit_is_not_read(reply: Reply) -> None:
    with (
        ChatServer([reply]) as server,
        pytest.raises(ChatRefusalError, match="more than 2048 bytes"),
    ):
        client_of(server, max_response_bytes=2048).ask(ASKED)
    assert len(server.requests) == 1


def test_an_endpoint_that_does_not_answer_in_time_is_given_up() -> None:
    never = threading.Event()
    with (
        ChatServer([Reply(body=b"x", hold=never)]) as server,
        pytest.raises(ChatError, match=r"the answer was not whole within 0.05 s; asked once"),
    ):
        client_of(server, timeout=0.05, attempts=1).ask(ASKED)
    never.set()


@pytest.mark.parametrize(
    ("trickle", "said"),
    [("headers", "no answer within 0.1 s"), ("body", "the answer was not whole within 0.1 s")],
)
def test_an_endpoint_that_trickles_is_given_up_when_its_time_is_over(
    trickle: Literal["headers", "body"], said: str
) -> None:
    """Each byte comes well within the time, so no time-out of a read ends it."""
    kept = Kept()
    with ChatServer([Reply(body=b"x" * 2000, trickle=trickle)]) as server:
        client = client_of(server, timeout=0.1, attempts=1)
        client.account = kept
        started = time.monotonic()
        with pytest.raises(ChatError, match=f"{said}; asked once"):
            client.ask(ASKED)
        assert time.monotonic() - started < 10, "the whole answer takes 20 s"
    assert kept.settled == [], "the prompt was taken, so what it costs is not known"


def test_nothing_listens() -> None:
    kept = Kept()
    with ChatServer([GOOD]) as server:
        client = client_of(server, attempts=2)
        client.account = kept
    with pytest.raises(ChatError, match=r"no connection \(.*\); asked 2 times"):
        client.ask(ASKED)
    assert kept.settled == [None, None], "nothing was sent"


@pytest.mark.parametrize(("remaining", "replies"), [(-1.0, []), (5.0, [problem(429, retry_after="7")])])
def test_a_deadline_ends_attempts(remaining: float, replies: Sequence[Reply]) -> None:
    with ChatServer(replies) as server, pytest.raises(ChatDeadlineError, match="deadline"):
        client_of(server).ask(ASKED, Deadline.within(remaining))
    assert len(server.requests) == len(replies)


def test_no_prompt_is_sent_past_the_deadline_after_a_wait_at_a_cap() -> None:
    class SlowAccount(Kept):
        def begin(self, request: Request[Answer]) -> None:
            time.sleep(0.03)

    kept = SlowAccount()
    with ChatServer([GOOD]) as server:
        client = client_of(server)
        client.account = kept
        with pytest.raises(ChatDeadlineError, match="deadline"):
            client.ask(ASKED, Deadline.within(0.02))
    assert server.requests == []
    assert kept.settled == [None], "what was held of the cap is given back"


@pytest.mark.parametrize("url", ["https://☃☃.example/v1", "https://1.2.3.999/v1"])
def test_an_address_that_names_no_host_is_said(url: str) -> None:
    settings = ChatSettings.of({"SEEDSET_CHAT_URL": url, "SEEDSET_CHAT_ATTEMPTS": "2"})
    with pytest.raises(ChatError, match=r"no address \(.*\); check SEEDSET_CHAT_URL"):
        ChatClient(settings, FakeClock().clock).ask(ASKED)


def test_of_a_proxy_that_does_not_connect_nothing_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    settings = ChatSettings.of({"SEEDSET_CHAT_URL": "https://host.example/v1", "SEEDSET_CHAT_ATTEMPTS": "2"})
    with ChatServer([GOOD]) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with pytest.raises(ChatError, match=r"no connection \(501 .*\); asked 2 times"):
            ChatClient(settings, FakeClock().clock, kept).ask(ASKED)
    assert kept.settled == [None, None], "nothing was sent"


def test_a_proxy_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://host:port")
    with pytest.raises(ChatError, match=r"no connection can be made .*; check HTTP_PROXY"):
        ChatClient(ChatSettings.of({"SEEDSET_CHAT_URL": "https://host.example/v1"}))


def test_nothing_shows_the_key() -> None:
    settings = ChatSettings.of({"SEEDSET_CHAT_KEY": KEY, "SEEDSET_CHAT_URL": "https://h/v1"})
    with ChatServer([GOOD]) as server:
        client = client_of(server)
    shown = " ".join([repr(settings), str(settings), settings.model_dump_json(), repr(client)])
    assert KEY not in shown


WRONG = {
    "URL": {"host/v1": "no address of HTTP", "ftp://h": "no address of HTTP", "http://[": "no address"}
    | {"https://ho\tst/v1": "no address has", "https://h/v1\nx": "no address has"}
    | {f"https://u:{KEY}@h/v1": "more than an address", f"https://h/v1?key={KEY}": "more than an address"},
    "KEY": {f"{KEY}\nx": "cannot be sent", f"{KEY}é": "cannot be sent"},
    "REPLAY": {"maybe": "valid boolean"},
    "MAX_TOKENS": {"many": "valid integer", "-1": "greater than or equal to 0"},
    "TIMEOUT": {"inf": "finite", "0": "greater than 0"},
    "MAX_COST": {"3": "set SEEDSET_CHAT_PROMPT_PRICE and SEEDSET_CHAT_ANSWER_PRICE"},
    "MAX_TOKEN": {"3": "no such variable; there are .*SEEDSET_CHAT_MAX_TOKENS"},
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, said in WRONG.items() for value in said])
def test_a_wrong_variable_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(ChatError, match=rf"^SEEDSET_CHAT_{name}: .*{WRONG[name][value]}") as caught:
        ChatSettings.of({f"SEEDSET_CHAT_{name}": value})
    assert KEY not in str(caught.value)


def test_a_key_goes_over_tls_or_stays_here() -> None:
    over = {"SEEDSET_CHAT_KEY": KEY}
    with pytest.raises(ChatError, match="in the clear; write https://"):
        ChatSettings.of({**over, "SEEDSET_CHAT_URL": "http://host.example/v1"})
    for fine in (
        "https://host.example/v1",
        "http://localhost:1/v1",
        "http://127.0.0.1:1/v1",
        "http://[::1]:1/v1",
    ):
        assert ChatSettings.of({**over, "SEEDSET_CHAT_URL": fine}).url == f"{fine}/chat/completions"
    assert ChatSettings.of({"SEEDSET_CHAT_URL": "http://host.example/v1/chat/completions/"}).url.endswith(
        "/v1/chat/completions"
    )


def test_what_is_missing_is_said() -> None:
    nothing = ChatSettings.of({"SEEDSET_CHAT_KEY": "", "PATH": "x", "SEEDSET_CHAT_REPLAY": "0"})
    assert re.match("SEEDSET_CHAT_MODEL is not set", nothing.missing(""))
    assert re.match("SEEDSET_CHAT_URL is not set", nothing.missing("m"))
    assert ChatSettings.of({"SEEDSET_CHAT_REPLAY": "1"}).missing("m") == ""


def test_the_key_of_a_request_is_of_all_that_is_sent_and_of_nothing_else() -> None:
    others = [
        ChatRequest("other", ASKED.messages, 50, seed=1),
        ChatRequest("stand-in", ASKED.messages[:1], 50, seed=1),
        ChatRequest("stand-in", ASKED.messages, 51, seed=1),
        ChatRequest("stand-in", ASKED.messages, 50, seed=2),
        ChatRequest("stand-in", ASKED.messages, 50, seed=1, temperature=1),
        ChatRequest("stand-in", ASKED.messages, 50, seed=1, json_object=True),
        ChatRequest("stand-in", ASKED.messages, 50, seed=1, tokens_field="max_completion_tokens"),
    ]
    assert len({ASKED.key, *(one.key for one in others)}) == len(others) + 1
    assert replace(ASKED).key == ASKED.key
    assert ASKED.most_prompt_tokens >= len("jsonGröße?".encode())
    assert json.dumps(ASKED.body)
