"""Ask a chat model which recalled entities agree with the seeds: the judge of the paper (appendix A).

The prompt is the paper's table 12 word for word, with its two worked examples, but for two things: names
stand in quotation marks, so that a comma in a name cannot change how many there are, and the answer is a JSON
object with its braces. The system message and the sampling are those of the authors' call
(:mod:`engine.chat.prompts`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.chat.chat import Chat
from engine.chat.messages import ChatAnswer, ChatRequest, Message
from engine.chat.prompts import SYSTEM
from engine.chat.settings import ChatRefusalError, usable_settings
from engine.contrast.judges import Kept, Side
from engine.storage.bundle import Bundle

TASK = (
    "I have a task that involves classifying candidate entities based on their alignment with a seed entity "
    "set. The seed entities are grouped together because they share certain attributes, referred to as seed "
    "attributes. I will provide a list of seed entities along with their seed attributes. Additionally, I "
    "have a list of candidate entities that are similar to the seed entities but may not necessarily share "
    "the same seed attributes. I need you to identify the seed attributes and use them to classify each "
    "candidate entity into one of two categories: 1) consistent with the seed entity set in terms of seed "
    "attributes, or 0) inconsistent with the seed entity set in terms of seed attributes. For the given N "
    "candidate entities, please output N values, each being 1 or 0, indicating whether each candidate is "
    "consistent (1) or inconsistent (0) with the seed entity set based on the seed attributes."
)
"""The paper's table 12."""

EXAMPLES = (
    (
        ("Mark Twain", "Ernest Hemingway", "F. Scott Fitzgerald"),
        (
            "J.K. Rowling",
            "Stephen King",
            "Agatha Christie",
            "John Steinbeck",
            "Harper Lee",
            "Charles Dickens",
            "Virginia Woolf",
        ),
        (0, 1, 0, 1, 1, 0, 0),
    ),
    (
        ("Golden Retriever", "German Shepherd", "Labrador Retriever"),
        ("Bengal Tiger", "Beagle", "Siberian Husky", "African Elephant", "Pug"),
        (0, 1, 1, 0, 1),
    ),
)
"""The two worked examples of table 12: seeds, candidates, values."""

ASKS = 3
"""Times that a side is asked in all, where the answer is not one value for each candidate."""

MAX_TOKENS = 2000
MOST_SIGNS = 1 << 16
"""Characters of an answer that are looked at."""

_RESULT = re.compile(r'"?result"?\s*:\s*(\[[^\[\]]*\])')
_LIST = re.compile(r"\[[^\[\]]*\]")
_VALUES: dict[Any, int] = {0: 0, 1: 1, "0": 0, "1": 1}


class MalformedAnswerError(ValueError):
    """An answer that is not one value, 0 or 1, for each candidate; says what it is."""


def judging_messages(seeds: Sequence[str], candidates: Sequence[str]) -> tuple[Message, ...]:
    """Return the prompt of the paper's table 12.

    Args:
        seeds: names of one side's seeds.
        candidates: names of the entities to be judged.
    """
    lines = [TASK, ""]
    for own, others, values in EXAMPLES:
        lines += [*_asked(own, others), json.dumps({"result": values}), ""]
    return Message("system", SYSTEM), Message("user", "\n".join([*lines, *_asked(seeds, candidates)]))


def _asked(seeds: Sequence[str], candidates: Sequence[str]) -> list[str]:
    return [
        "Input:",
        f"Seed entities: {json.dumps(list(seeds), ensure_ascii=False)}",
        f"Candidate entities: {json.dumps(list(candidates), ensure_ascii=False)}, "
        f"total {len(candidates)} entities",
        "Output:",
    ]


def read_values(content: str, n: int) -> list[int]:
    """Return the n values of an answer, each 0 or 1.

    Read are the JSON object that is asked for, the same without its braces as table 12 prints it, and a list
    alone, each also with text or a fence around it; numbers may be text or true and false.

    Raises:
        MalformedAnswerError: there is no such list, or of another length, or with another value.
    """
    text = content[:MOST_SIGNS]
    found = _RESULT.findall(text) or _LIST.findall(text)
    if not found:
        raise MalformedAnswerError(f"it holds no list: {' '.join(text.split())[:80]!r}")
    try:
        values = json.loads(found[-1])
    except ValueError:
        raise MalformedAnswerError(f"its list cannot be read: {found[-1][:80]!r}") from None
    wrong = [one for one in values if isinstance(one, list | dict) or one not in _VALUES]
    if wrong:
        raise MalformedAnswerError(f"its list holds {str(wrong[0])[:40]!r}, which is neither 0 nor 1")
    if len(values) != n:
        raise MalformedAnswerError(f"its list has {len(values)} values, not {n}")
    return [_VALUES[one] for one in values]


@dataclass(frozen=True)
class ChatJudge:
    """Keep the entities that a chat model finds consistent with the seeds of their side.

    Each side of a query is one prompt. An answer without one value for each candidate is shown to the model
    with what is wrong of it, and asked again, :data:`ASKS` times in all. Every answer is kept in the cache,
    so a rerun asks nothing and keeps the same.

    Args:
        chat: the model, its cache and its caps.
        model: its name.
        names: of all entities, by id.
    """

    chat: Chat
    model: str
    names: Sequence[str]

    @classmethod
    def open(cls, bundle: Bundle) -> ChatJudge:
        """Return the judge by the endpoint that the environment names (``SEEDSET_CHAT_…``).

        Raises:
            ChatError: a variable is missing or wrong.
        """
        settings = usable_settings("", "--judge chat")
        return cls(Chat.of_bundle(settings, bundle), settings.model, bundle.vocabulary.names)

    @property
    def threads(self) -> int:
        """As many prompts as the settings let be under way at once."""
        return self.chat.settings.concurrency

    def keep(self, side: Side) -> Kept:
        """See :class:`engine.contrast.judges.Judge`.

        Raises:
            ChatRefusalError: the model does not answer this side, or never as it was asked to.
            ChatError: the endpoint cannot be asked, or a cap is reached; what was answered is kept.
        """
        names = [self.names[i] for i in side.candidates.tolist()]
        messages = judging_messages([self.names[i] for i in side.seeds], names)
        problem = ""
        for _ in range(ASKS):
            answer = self.chat.ask(self._request(messages))
            try:
                return np.array(read_values(_said(answer), len(names)), bool)
            except MalformedAnswerError as error:
                problem = str(error)
            messages = (*messages, *_again(answer, problem, len(names)))
        why = f"the chat model's answer is not of use, {ASKS} times: {problem}"
        raise ChatRefusalError(why, public=why)

    def account(self) -> str:
        """Return how many requests, tokens and, with prices, how much money are counted beside the cache."""
        return self.chat.account()

    def _request(self, messages: tuple[Message, ...]) -> ChatRequest:
        return ChatRequest(
            model=self.model,
            messages=messages,
            max_tokens=MAX_TOKENS,
            temperature=0.0,
            top_p=0.01,
            seed=42,
            json_object=True,
        )


def _said(answer: ChatAnswer) -> str:
    """Return an answer's text.

    Raises:
        ChatRefusalError: the model or its endpoint declines.
    """
    if answer.finish == "content_filter" or (answer.refusal and not answer.content):
        why = f"the chat model declines: {' '.join((answer.refusal or answer.finish).split())[:120]!r}"
        raise ChatRefusalError(why, public=why)
    return answer.content


def _again(answer: ChatAnswer, problem: str, n: int) -> tuple[Message, ...]:
    """Return what is added to the conversation after an answer that is not of use."""
    told = f'This cannot be used: {problem}. Answer with {{"result": […]}} alone, {n} values, each 0 or 1.'
    own = (Message("assistant", answer.content),) if answer.content.strip() else ()
    return (*own, Message("user", told))
