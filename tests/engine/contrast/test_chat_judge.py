"""The chat model's judgement: its prompt, what is read of its answers, and endpoints that misbehave."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.chat.chat import Chat
from engine.chat.settings import ChatError, ChatRefusalError, ChatSettings
from engine.contrast.chat_judge import ASKS, ChatJudge, MalformedAnswerError, judging_messages, read_values
from engine.contrast.judges import Side
from engine.storage.store import Store
from tests.support.chat_server import MODEL, FakeClock, Reply, chat_server, completion, problem

NAMES = ["Norway", "Sweden", "Denmark", "Paris, Texas", 'The "Ark"']
SIDE = Side((0,), (3,), np.array([1, 2, 3], np.int32))


def judge(folder: Path) -> ChatJudge:
    """Return a judge by the environment, for which no time passes while it waits to ask again."""
    settings = ChatSettings.of()
    return ChatJudge(Chat.open(settings, Store.open(folder), FakeClock().clock), MODEL, NAMES)


def verdict(*values: Any) -> Reply:
    return completion(json.dumps({"result": values}))


def test_the_prompt_is_table_12() -> None:
    system, user = judging_messages(["Norway"], ["Paris, Texas", 'The "Ark"'])
    assert (system.role, user.role) == ("system", "user")
    parts = user.content.split("\n\n")
    assert parts[0].startswith("I have a task that involves classifying candidate entities based on their")
    assert "1) consistent with the seed entity set in terms of seed attributes, or 0) incons" in parts[0]
    assert parts[1].splitlines()[-1] == '{"result": [0, 1, 0, 1, 1, 0, 0]}'
    assert parts[2].splitlines()[-1] == '{"result": [0, 1, 1, 0, 1]}'
    assert parts[3].splitlines() == [
        "Input:",
        'Seed entities: ["Norway"]',
        r'Candidate entities: ["Paris, Texas", "The \"Ark\""], total 2 entities',
        "Output:",
    ]
    for part in parts[1:3]:  # the examples count as many as they list
        asked = part.splitlines()[2].removeprefix("Candidate entities: ")
        listed, _, counted = asked.partition(", total ")
        assert counted == f"{len(json.loads(listed))} entities"
        assert len(json.loads(part.splitlines()[-1])["result"]) == len(json.loads(listed))


@pytest.mark.parametrize(
    "content",
    [
        '{"result": [0,1,1]}',
        '"result": [0, 1, 1]',
        "[0,1,1]",
        'Sure:\n```json\n{"result": ["0", "1", "1"]}\n```\nThey share [a shore].',
        '{"result": [false, true, true]}',
        '{"result": [0.0, 1, 1]}',
    ],
)
def test_values_are_read_in_every_form_that_models_give_them(content: str) -> None:
    assert read_values(content, 3) == [0, 1, 1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "holds no list"),
        ("I think that all are.", "holds no list: 'I think"),
        ('{"result": [0, 1', "holds no list"),
        ('{"result": [0, 1]}', "has 2 values, not 3"),
        ('{"result": [0, 1, 1, 1]}', "has 4 values, not 3"),
        ('{"result": [0, 1, 2]}', "holds '2', which is neither"),
        ('{"result": [0, 1, null]}', "holds 'None'"),
        ('{"result": [0, 1, {}]}', "holds '{}'"),
        ('{"result": [0, 1, yes]}', "cannot be read"),
    ],
)
def test_what_is_no_judgement_is_named(content: str, said: str) -> None:
    with pytest.raises(MalformedAnswerError, match=said):
        read_values(content, 3)


def test_what_the_model_finds_consistent_is_kept_and_a_rerun_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [verdict(0, 1, 1)]) as server:
        assert judge(tmp_path).keep(SIDE).tolist() == [False, True, True]
        assert judge(tmp_path).keep(SIDE).tolist() == [False, True, True]
        assert len(server.requests) == 1
    (asked,) = server.requests
    assert asked["response_format"] == {"type": "json_object"}
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["max_tokens"]) == (0.0, 0.01, 42, 2000)
    assert judge(tmp_path).account().startswith("chat: 1 requests, 150 tokens are counted in ")
    monkeypatch.setenv("SEEDSET_CHAT_REPLAY", "1")
    assert judge(tmp_path).keep(SIDE).tolist() == [False, True, True]
    with pytest.raises(ChatError, match="no answer of 'stand-in' is kept"):
        judge(tmp_path).keep(SIDE._replace(seeds=(1,)))


def test_a_malformed_or_short_answer_is_shown_and_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [verdict(0, 1), completion(""), verdict(1, 0, 0)]) as server:
        assert judge(tmp_path).keep(SIDE).tolist() == [True, False, False]
    first, second, third = (one["messages"] for one in server.requests)
    assert second[:2] == third[:2] == first
    assert [m["role"] for m in second[2:]] == ["assistant", "user"]
    assert second[2]["content"] == '{"result": [0, 1]}'
    assert "has 2 values, not 3" in second[3]["content"]
    assert [m["role"] for m in third[4:]] == ["user"], "an empty answer is not shown"


def test_it_is_asked_again_so_often_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with chat_server(monkeypatch, [completion("perhaps")]) as server:
        with pytest.raises(ChatRefusalError, match=f"not of use, {ASKS} times: it holds no list: 'perhaps'"):
            judge(tmp_path).keep(SIDE)
        assert len(server.requests) == ASKS


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (completion(None, refusal="I cannot."), "declines: 'I cannot.'"),
        (completion(None, "content_filter"), "declines: 'content_filter'"),
        (problem(400, "context_length_exceeded", "too long"), "this prompt is not answered"),
    ],
)
def test_a_refusal_is_of_this_side_alone_and_is_not_asked_again(
    reply: Reply, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [reply]) as server:
        with pytest.raises(ChatRefusalError, match=said):
            judge(tmp_path).keep(SIDE)
        assert len(server.requests) == 1


def test_an_endpoint_that_fails_is_tried_again_and_a_cap_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with chat_server(monkeypatch, [problem(503), verdict(1, 1, 0)], max_requests=2) as server:
        assert judge(tmp_path).keep(SIDE).tolist() == [True, True, False]
        assert len(server.requests) == 2
        with pytest.raises(ChatError, match="SEEDSET_CHAT_MAX_REQUESTS=2: the cap is reached") as caught:
            judge(tmp_path).keep(SIDE._replace(seeds=(1,)))
    assert not isinstance(caught.value, ChatRefusalError)


def test_a_slow_endpoint_is_given_up_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    slow = Reply(body=b"{}", hold=never)
    with chat_server(monkeypatch, [slow], timeout=0.05, attempts=2) as server:
        with pytest.raises(ChatError) as caught:
            judge(tmp_path).keep(SIDE)
        assert len(server.requests) == 2
        never.set()
    assert not isinstance(caught.value, ChatRefusalError), "it ends the run; no query is given up for it"
