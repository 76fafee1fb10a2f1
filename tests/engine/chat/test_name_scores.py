"""Scores of names by an endpoint: those of the same model here, and what goes wrong."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.chat.chat import Chat
from engine.chat.name_scores import NAMES, EndpointScores, ScoreRequest
from engine.chat.settings import ChatError, ChatRefusalError, ChatSettings
from engine.generation.names import name_trie
from engine.generation.prompts import list_prompt, name_text
from engine.generation.trie_scores import name_logprobs
from engine.storage.store import Store
from tests.support.chat_server import Answering, ChatServer, FakeClock, Reply, problem
from tests.support.completions import PATH, choice, echoed
from tests.support.language_models import tiny_model

PROMPTS = [list_prompt(["France", "Spain"]), list_prompt(["iron", "Zürich", "東京"])]


def scores_of(url: str, folder: Path, **settings: Any) -> EndpointScores:
    given = ChatSettings.model_validate({"url": url, "attempts": 2, **settings})
    return EndpointScores(Chat.open(given, Store.open(folder), FakeClock().clock), "stand-in")


def test_names_have_the_log_probabilities_of_the_same_model_here(tmp_path: Path) -> None:
    model = tiny_model()
    names = [f"San {c}{d}" for c in "ABCDEFGH" for d in ("an", "iego", "Jose", "ü", "京")]
    assert len(names) > NAMES, "more than one request"
    trie = name_trie(model.tokenizer, names)
    prompts = [model.encode(text) for text in PROMPTS]
    expected = name_logprobs(model, prompts, [trie, trie], "vocabulary")
    with ChatServer(echoed(model), PATH) as server:
        scores = scores_of(server.url, tmp_path)
        texts = [name_text(name) for name in names]
        found = scores(PROMPTS, texts)
        np.testing.assert_allclose(found, [one.logprobs for one in expected], atol=1e-4)
        np.testing.assert_array_equal(scores(PROMPTS, texts), found)
        assert len(server.requests) == 4, "answers are kept"
    counts = scores.chat.counts()
    assert (counts["requests"], counts["cached"], counts["answer_tokens"]) == (4, 4, 0)
    assert scores.chat.spent().tokens == counts["prompt_tokens"] > 0


def reply_of(*choices: dict[str, Any]) -> list[Reply]:
    return [Reply(body=json.dumps({"choices": list(choices)}).encode())]


def cut(whole: dict[str, Any], **changed: Any) -> dict[str, Any]:
    return {**whole, "logprobs": {**whole["logprobs"], **changed}}


GOOD = choice(tiny_model(), 0, "iron and gold.")
VALUES = GOOD["logprobs"]["token_logprobs"]

NO_LOGPROBS = "answers without log-probabilities of the prompt"
HIGH = [None, *([0.5] * (len(VALUES) - 1))]
LONGER = {**GOOD, "text": "iron and gold. And"}

BROKEN: dict[str, tuple[list[Reply] | Answering, str]] = {
    "no log-probabilities": (reply_of({**GOOD, "logprobs": None}), NO_LOGPROBS),
    "none of a token": (reply_of(cut(GOOD, token_logprobs=[None] * len(VALUES))), NO_LOGPROBS),
    "chat": (reply_of({"index": 0, "message": {"content": "hi"}}), r"it is no completion \(choices.0.text"),
    "too few choices": (reply_of(GOOD, GOOD), "it has 2 choices for 1 prompts"),
    "fewer values": (reply_of(cut(GOOD, token_logprobs=VALUES[:-1])), "log-probabilities for"),
    "another text": (reply_of(LONGER), "echoes another text than 'iron and gold.'"),
    "above 0": (reply_of(cut(GOOD, token_logprobs=HIGH)), "above 0, or no number"),
    "not JSON": ([Reply(body=b"<html>")], r"/v1/completions: the answer cannot be used \(it is not JSON"),
    "an address without completions": ([problem(404)], "check SEEDSET_CHAT_URL and SEEDSET_CHAT_MODEL"),
    "a key that is refused": ([problem(401)], "it wants a key"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_what_cannot_be_used_is_named(how: str, tmp_path: Path) -> None:
    replies, said = BROKEN[how]
    with ChatServer(replies, PATH) as server, pytest.raises(ChatError, match=said):
        scores_of(server.url, tmp_path)(["iron and"], [" gold."])


def test_a_name_in_the_middle_of_a_token_is_named(tmp_path: Path) -> None:
    with (
        ChatServer(reply_of(GOOD), PATH) as server,
        pytest.raises(ChatError, match="no token begins with the name"),
    ):
        scores_of(server.url, tmp_path)(["iron an"], ["d gold."])


def test_a_prompt_that_is_too_long_and_an_answer_that_is_slow(tmp_path: Path) -> None:
    held = threading.Event()
    with (
        ChatServer([problem(400, message="maximum context length is 8 tokens")], PATH) as server,
        pytest.raises(ChatRefusalError, match="context length"),
    ):
        scores_of(server.url, tmp_path)(["iron and"], [" gold."])
    with (
        ChatServer([Reply(body=b"{}", hold=held)], PATH) as server,
        pytest.raises(ChatError, match="not whole within"),
    ):
        scores_of(server.url, tmp_path, timeout=0.2, attempts=1)(["iron and"], [" gold."])
    held.set()


def test_a_request_is_known_by_what_is_sent() -> None:
    asked = ScoreRequest("m", "iron and", (" gold.", " zinc."))
    assert asked.body["prompt"] == ["iron and gold.", "iron and zinc."]
    others = [ScoreRequest("n", "iron and", asked.continuations), ScoreRequest("m", "iron and", (" gold.",))]
    assert len({asked.key, *(one.key for one in others)}) == 3
    assert asked.about() == "'iron and gold.'"
    assert asked.most_prompt_tokens >= 28
