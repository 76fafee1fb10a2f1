"""Score names after a prompt by the log-probabilities of an endpoint's completions.

Of servers that echo a prompt with its log-probabilities (vLLM and others, ``POST …/completions`` with
``echo``, ``logprobs`` and no new tokens). Each name is sent behind the prompt; the sum over its tokens is
its log-probability over the whole vocabulary, in the endpoint's own tokens. Chat completions give none of a
prompt.

Shape letters: P prompts, N names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field

from engine.chat.chat import Chat
from engine.chat.messages import Answer, MalformedError, Request, Usage, parsed, shortened, without_key
from engine.chat.settings import SCORES, ChatError
from engine.query import Deadline
from engine.refusals import encodable

NAMES = 32
"""Names of a request: more than a few share the prompt's computation where a server caches prefixes."""

ROUNDING = 1e-3
"""By which a server's log-probability may be above 0."""

NO_LOGPROBS = (
    "the endpoint answers without log-probabilities of the prompt; use one that answers /completions with "
    "echo and logprobs, as vLLM does, or score by the bundle's own language model"
)


class ScoreAnswer(Answer):
    """The log-probabilities of some continuations, natural logarithms.

    Attributes:
        logprobs: of each continuation after the prompt, in the request's order.
    """

    logprobs: tuple[float, ...]


@dataclass(frozen=True)
class ScoreRequest(Request[ScoreAnswer]):
    """Some continuations of one prompt.

    Args:
        model: the name that the endpoint knows.
        prompt: what the continuations follow.
        continuations: at least one, none empty.
    """

    path: ClassVar[str] = SCORES
    answer_type: ClassVar[type[Answer]] = ScoreAnswer

    model: str
    prompt: str
    continuations: tuple[str, ...]
    max_tokens: int = 0

    @cached_property
    def texts(self) -> list[str]:
        """What is sent: the prompt with each continuation."""
        return [encodable(self.prompt + one) for one in self.continuations]

    @property
    def body(self) -> dict[str, Any]:
        """See :class:`Request`."""
        return {
            "model": self.model,
            "prompt": self.texts,
            "max_tokens": 0,
            "echo": True,
            "logprobs": 0,
            "temperature": 0.0,
        }

    @property
    def most_prompt_tokens(self) -> int:
        """See :class:`Request`."""
        return sum(len(text.encode()) + 8 for text in self.texts)

    def about(self) -> str:
        """See :class:`Request`."""
        return shortened(self.texts[0])

    def read(self, body: bytes, hidden: str = "") -> ScoreAnswer:
        """See :class:`Request`."""
        found = parsed(body, _Completions, "completion")
        by_index = {choice.index: choice for choice in found.choices}
        if sorted(by_index) != list(range(len(self.texts))) or len(found.choices) != len(self.texts):
            raise MalformedError(f"it has {len(found.choices)} choices for {len(self.texts)} prompts")
        length = len(encodable(self.prompt))
        logprobs = tuple(_sum_of_end(by_index[i], text, length) for i, text in enumerate(self.texts))
        usage = found.usage or Usage()
        return ScoreAnswer(
            logprobs=logprobs,
            model=without_key(found.model or "", hidden),
            prompt_tokens=usage.prompt_tokens,
            answer_tokens=usage.completion_tokens or 0,
        )


class _Logprobs(BaseModel):
    tokens: list[str] = Field(min_length=1)
    token_logprobs: list[float | None]
    text_offset: list[int]


class _Choice(BaseModel):
    index: int = 0
    text: str
    logprobs: _Logprobs | None = None


class _Completions(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: Usage | None = None
    model: str | None = None


def _sum_of_end(choice: _Choice, text: str, begin: int) -> float:
    """Return the sum of log-probabilities of the tokens from character ``begin`` of the text on.

    Places are counted from the end: some servers count a token in front that the text does not hold.

    Raises:
        ChatError: there are none: asking again would not help.
        MalformedError: another text is echoed, the tokens do not begin there, or one is no log-probability.
    """
    given = choice.logprobs
    if given is None:
        raise ChatError(NO_LOGPROBS)
    places, values = given.text_offset, given.token_logprobs
    if not len(places) == len(values) == len(given.tokens):
        raise MalformedError(f"it has {len(values)} log-probabilities for {len(given.tokens)} tokens")
    if choice.text != text:
        raise MalformedError(f"it echoes another text than {shortened(text)}")
    first = places[-1] + len(given.tokens[-1]) - (len(text) - begin)
    if first not in places:
        raise MalformedError(f"no token begins with the name, at character {begin} of {shortened(text)}")
    own = [value for place, value in zip(places, values, strict=True) if place >= first]
    known = [value for value in own if value is not None]
    if len(known) < len(own):
        raise ChatError(NO_LOGPROBS)
    if not all(value <= ROUNDING for value in known):  # NaN is not, either
        raise MalformedError("a log-probability is above 0, or no number")
    return math.fsum(known)


@dataclass(frozen=True)
class EndpointScores:
    """Scores names by an endpoint.

    Args:
        chat: the endpoint, with its cache and its caps.
        model: as the endpoint names it.
    """

    chat: Chat
    model: str

    def __call__(
        self, prompts: Sequence[str], names: Sequence[str], deadline: Deadline | None = None
    ) -> npt.NDArray[np.float64]:
        """Return the log-probability of each name after each prompt, float64 [P, N].

        Args:
            prompts: texts.
            names: what follows, as it is written behind a prompt.
            deadline: no request goes on past it.

        Raises:
            ChatError: the endpoint cannot be asked, or answers without log-probabilities. What it has
                answered is kept; a rerun goes on.
            ChatRefusalError: a prompt is not answered.
        """
        requests = [
            ScoreRequest(self.model, prompt, tuple(names[start : start + NAMES]))
            for prompt in prompts
            for start in range(0, len(names), NAMES)
        ]
        pool = ThreadPoolExecutor(self.chat.settings.concurrency, thread_name_prefix="scores")
        try:
            answers = list(pool.map(lambda request: self.chat.ask(request, deadline), requests))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        logprobs = [value for answer in answers for value in answer.logprobs]
        return np.array(logprobs, np.float64).reshape(len(prompts), len(names))
