"""Test the cache of answers, replay, and the cap on what is spent."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from engine.chat.budget import FILE
from engine.chat.chat import RESTING_S, Chat
from engine.chat.messages import ChatAnswer, ChatRequest, Message
from engine.chat.settings import ChatError, ChatRefusalError, ChatSettings
from engine.errors import StorageError
from engine.storage.store import Store
from tests.support.chat_server import ChatServer, FakeClock, completion, problem


def prompt(text: str = "x", max_tokens: int = 60) -> ChatRequest:
    return ChatRequest("stand-in", (Message("user", text),), max_tokens)


def chat_of(url: str, folder: Path | str, clock: FakeClock | None = None, **settings: Any) -> Chat:
    given = ChatSettings.model_validate({**({"url": url} if url else {}), "attempts": 1, **settings})
    given.check()
    return Chat.open(given, Store.open(folder), (clock or FakeClock()).clock)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.rglob("*.json") if p.name != FILE}


@pytest.mark.parametrize("where", ["local", "s3"])
def test_an_answer_is_kept_and_replayed_without_an_endpoint(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    folder = str(tmp_path / "chat") if where == "local" else f"{request.getfixturevalue('s3')}/chat"
    with ChatServer([completion("Größe")]) as server:
        chat = chat_of(server.url, folder)
        first = chat.ask(prompt())
        assert chat.ask(prompt()) == first
        assert chat.counts() == {"requests": 1, "cached": 1, "prompt_tokens": 100, "answer_tokens": 50}
    replayed = chat_of("", folder, replay=True)
    assert replayed.ask(prompt()) == first
    with pytest.raises(
        ChatError, match=r"no answer of 'stand-in' is kept to the prompt 'other' \(\w+\.json\)"
    ):
        replayed.ask(prompt("other"))
    spent = replayed.spent()
    assert (spent.requests, spent.prompt_tokens, spent.answer_tokens) == (1, 100, 50)


def test_what_is_wrong_with_a_proxy_is_said_by_prompts_and_not_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://host:port")
    chat = chat_of("https://host.example/v1", tmp_path)
    chat.connect()
    with pytest.raises(ChatError, match="check HTTP_PROXY"):
        chat.ask(prompt())


def test_of_two_workers_the_first_answer_stays(tmp_path: Path) -> None:
    with ChatServer(lambda asked: completion(f"{threading.get_ident()}")) as server:
        chats = [chat_of(server.url, tmp_path) for _ in range(4)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda i: chats[i % 4].ask(prompt()).content, range(16)))
        assert len(set(found)) == 1
        assert len(files(tmp_path)) == 1


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"answer": 3}', b"\xff", b'{"request": {}, "answer": {"content": ""}}']
)
def test_a_broken_answer_is_named(content: bytes, tmp_path: Path) -> None:
    chat = chat_of("http://127.0.0.1:9/v1", tmp_path)
    chat.cache.put(prompt(), ChatAnswer(content="ok"))
    (file,) = [p for p in tmp_path.rglob("*.json") if p.name != FILE]
    file.write_bytes(content)
    with pytest.raises(StorageError, match=rf"{file.name}: .*; delete the file"):
        chat.ask(prompt())


CAPS: dict[str, dict[str, Any]] = {
    "max_requests": {"max_requests": 2},
    # Each answer costs 150; 17 + 60 are held for the next.
    "max_tokens": {"max_tokens": 376},
    "max_cost": {"max_cost": 2.7, "prompt_price": 10_000, "answer_price": 5_000},
}


@pytest.mark.parametrize("name", CAPS)
def test_at_the_cap_no_prompt_is_sent_and_what_was_answered_is_kept(name: str, tmp_path: Path) -> None:
    with ChatServer([completion("ok")]) as server:
        chat = chat_of(server.url, tmp_path, **CAPS[name])
        chat.ask(prompt("a"))
        chat.ask(prompt("b"))
        with pytest.raises(
            ChatError, match=rf"SEEDSET_CHAT_{name.upper()}=.*the cap is reached.*spent\.json"
        ):
            chat.ask(prompt("c"))
        assert len(server.requests) == 2
        assert chat.ask(prompt("a")).content == "ok"
        raised = chat_of(server.url, tmp_path, max_requests=3)
        assert raised.ask(prompt("c")).content == "ok"
    assert len(files(tmp_path)) == 3


def test_no_cap_is_exceeded_by_many_workers(tmp_path: Path) -> None:
    def ask(place: int) -> bool:
        try:
            chats[place % 3].ask(prompt(f"prompt {place}"))
        except ChatError:
            return False
        return True

    with ChatServer([completion("ok")]) as server:
        chats = [chat_of(server.url, tmp_path, max_requests=7) for _ in range(3)]
        with ThreadPoolExecutor(6) as pool:
            answered = list(pool.map(ask, range(20)))
        assert len(server.requests) == 7
    assert sum(answered) == 7
    assert chats[0].spent().requests == 7
    assert len(files(tmp_path)) == 7


def test_a_worker_waits_for_its_own_prompts_before_it_says_that_a_cap_is_reached(tmp_path: Path) -> None:
    # Two prompts together could cost 2 x (17 + 1000) tokens; they cost 150 each.
    with ChatServer([completion("ok")]) as server:
        chat = chat_of(server.url, tmp_path, max_tokens=1400)
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(lambda i: chat.ask(prompt(f"{i}", 1000)).content, range(3)))
    assert found == ["ok"] * 3
    assert chat.spent().tokens == 450


def test_what_is_not_counted_by_the_endpoint_counts_as_the_most_it_can_be(tmp_path: Path) -> None:
    with ChatServer([completion("ok", usage=False), problem(500)]) as server:
        chat = chat_of(server.url, tmp_path)
        chat.ask(prompt("a"))
        assert (chat.spent().prompt_tokens, chat.spent().answer_tokens) == (
            prompt("a").most_prompt_tokens,
            60,
        )
        with pytest.raises(ChatError):
            chat.ask(prompt("b"))
    spent = chat.spent()  # a refused request is counted; it cost no tokens
    assert (spent.requests, spent.tokens) == (2, prompt("a").most_prompt_tokens + 60)
    assert spent.cost(chat.settings) is None


def test_a_count_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}}")
    with pytest.raises(StorageError, match=r"spent\.json: not the count"):
        chat_of("http://127.0.0.1:9/v1", tmp_path).ask(prompt())


def test_an_endpoint_that_failed_rests(tmp_path: Path) -> None:
    clock = FakeClock()
    with ChatServer([problem(401), completion("ok")]) as server:
        chat = chat_of(server.url, tmp_path, clock, key="k")
        for text in "abc":
            with pytest.raises(ChatError, match="401"):
                chat.ask(prompt(text))
        assert len(server.requests) == 1
        clock.time += RESTING_S
        assert chat.ask(prompt("d")).content == "ok"


def test_a_prompt_that_is_refused_keeps_no_other_from_being_asked(tmp_path: Path) -> None:
    with ChatServer([problem(400, "context_length_exceeded"), completion("ok")]) as server:
        chat = chat_of(server.url, tmp_path)
        with pytest.raises(ChatRefusalError):
            chat.ask(prompt("a"))
        assert chat.ask(prompt("b")).content == "ok"
    (content,) = files(tmp_path).values()
    kept = json.loads(content)
    assert kept["request"] == prompt("b").body
    assert kept["answer"]["content"] == "ok"
