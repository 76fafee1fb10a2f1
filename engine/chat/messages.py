"""Define what is asked of an endpoint and what it answers, and read the JSON of chat completions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.chat.settings import COMPLETIONS
from engine.refusals import encodable
from engine.storage.parts import content_key

TokensField = Literal["max_tokens", "max_completion_tokens"]
"""Name under which an endpoint takes the most tokens of an answer; newer models of OpenAI want the second."""

LONG_KEY = 16
"""Characters from which a key is looked for in answers: a shorter one ("EMPTY") may be a word there."""


class Message(NamedTuple):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Answer(BaseModel):
    """What an endpoint answers.

    Attributes:
        model: the model that answered, as the endpoint names it.
        prompt_tokens: counted by the endpoint; None where it does not count.
        answer_tokens: likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = ""
    prompt_tokens: int | None = Field(default=None, ge=0)
    answer_tokens: int | None = Field(default=None, ge=0)


A_co = TypeVar("A_co", bound=Answer, covariant=True)


class Request(ABC, Generic[A_co]):
    """What is sent, with all that its answer depends on.

    Attributes:
        path: where it is sent, below the base address.
        answer_type: of what comes back.
        model: the name that the endpoint knows.
        max_tokens: of the answer.
    """

    path: ClassVar[str]
    answer_type: ClassVar[type[Answer]]
    model: str
    max_tokens: int

    @property
    @abstractmethod
    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""

    @cached_property
    def key(self) -> str:
        """The name of the answer in a cache: a digest of all that is sent, the order of keys apart."""
        return content_key(json.dumps(self.body, sort_keys=True, ensure_ascii=False, separators=(",", ":")))

    @property
    @abstractmethod
    def most_prompt_tokens(self) -> int:
        """Bound of the prompt's tokens from above: none is shorter than a byte."""

    @abstractmethod
    def about(self) -> str:
        """Return a short line that names the prompt in an error."""

    @abstractmethod
    def read(self, body: bytes, hidden: str = "") -> A_co:
        """Return the answer that a response of status 200 holds.

        Args:
            body: of the response.
            hidden: a key, which a gateway may repeat in what it calls an answer.

        Raises:
            MalformedError: it holds none.
        """


class ChatAnswer(Answer):
    """A model's answer.

    Attributes:
        content: its text; "" where it gave none.
        finish: why it ended: "stop", "length" (cut off at the most tokens), "content_filter" …
        refusal: what it said in place of an answer.
    """

    content: str
    finish: str = ""
    refusal: str = ""


@dataclass(frozen=True)
class ChatRequest(Request[ChatAnswer]):
    """A prompt with all that its answer depends on.

    Args:
        model: the name that the endpoint knows.
        messages: the conversation, which the answer goes on with.
        max_tokens: of the answer.
        temperature: None: not sent.
        top_p: None: not sent.
        seed: None: not sent.
        json_object: ask for an answer that is a JSON object.
        tokens_field: how ``max_tokens`` is called.
    """

    path: ClassVar[str] = COMPLETIONS
    answer_type: ClassVar[type[Answer]] = ChatAnswer

    model: str
    messages: tuple[Message, ...]
    max_tokens: int
    temperature: float | None = 0.0
    top_p: float | None = None
    seed: int | None = None
    json_object: bool = False
    tokens_field: TokensField = "max_tokens"

    @cached_property
    def body(self) -> dict[str, Any]:
        """The JSON object that is sent."""
        optional = {"temperature": self.temperature, "top_p": self.top_p, "seed": self.seed}
        return {
            "model": self.model,
            "messages": [{"role": m.role, "content": encodable(m.content)} for m in self.messages],
            self.tokens_field: self.max_tokens,
            **{name: value for name, value in optional.items() if value is not None},
            **({"response_format": {"type": "json_object"}} if self.json_object else {}),
        }

    @property
    def most_prompt_tokens(self) -> int:
        """Bound of the prompt's tokens from above: none is shorter than a byte; a message has a few more."""
        return sum(len(encodable(m.content).encode()) + 8 for m in self.messages) + 8

    def about(self) -> str:
        """Return the beginning of the last message, to name the prompt in an error."""
        return shortened(self.messages[-1].content)

    def read(self, body: bytes, hidden: str = "") -> ChatAnswer:
        """See :class:`Request`."""
        return read_completion(body, hidden)


def shortened(text: str) -> str:
    """Return the beginning and the end of a text on one line, in quotes."""
    text = " ".join(encodable(text).split())
    return repr(text if len(text) <= 120 else f"{text[:60]} … {text[-60:]}")


class MalformedError(ValueError):
    """A response that is no completion; says in a few words what it is."""


class _Message(BaseModel):
    content: str | None = None
    refusal: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class Usage(BaseModel):
    """Tokens as an endpoint counts them."""

    prompt_tokens: int | None = Field(default=None, ge=0)
    completion_tokens: int | None = Field(default=None, ge=0)


class _Completion(BaseModel):
    choices: list[_Choice]
    usage: Usage | None = None
    model: str | None = None


def read_completion(body: bytes, hidden: str = "") -> ChatAnswer:
    """Return the answer that a response of status 200 holds.

    Args:
        body: of the response.
        hidden: a key, which a gateway may repeat in what it calls an answer.

    Raises:
        MalformedError: it is not UTF-8, not JSON, cut off, or has no choice.
    """
    found = parsed(body, _Completion, "chat completion")
    if not found.choices:
        raise MalformedError("it has no choice")
    choice, usage = found.choices[0], found.usage or Usage()

    def text(given: str | None) -> str:
        return without_key(given or "", hidden)

    return ChatAnswer(
        content=text(choice.message.content),
        finish=text(choice.finish_reason),
        refusal=text(choice.message.refusal),
        model=text(found.model),
        prompt_tokens=usage.prompt_tokens,
        answer_tokens=usage.completion_tokens,
    )


Parsed = TypeVar("Parsed", bound=BaseModel)


def parsed(body: bytes, form: type[Parsed], what: str) -> Parsed:
    """Return a response's JSON in a form.

    Raises:
        MalformedError: it is not UTF-8, not JSON, cut off, or not ``what`` it should be.
    """
    try:
        return form.model_validate(json.loads(body.decode("utf-8-sig")))
    except UnicodeDecodeError as error:
        raise MalformedError(f"it is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise MalformedError(f"it is not JSON, or cut off ({error})") from None
    except RecursionError:
        raise MalformedError("its JSON is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise MalformedError(f"it is no {what} ({place}: {first['msg']})") from None
    except ValueError as error:  # a number of thousands of digits
        raise MalformedError(f"its JSON cannot be read ({error})") from None


def without_key(text: str, hidden: str) -> str:
    """Return a text of an answer that can be stored, without the key, if this is no word."""
    return _without(encodable(text), hidden if len(hidden) >= LONG_KEY else "")


class Problem(NamedTuple):
    """What the body of an error says: a code, and a line for people."""

    code: str
    message: str


def read_problem(body: bytes, hidden: str = "") -> Problem:
    """Return what an endpoint says of an error, on one short line.

    Args:
        body: of a response that is no completion; anything.
        hidden: a key, which an endpoint may repeat.
    """
    code = message = ""
    try:
        found = json.loads(body.decode("utf-8", "replace"))
        error = found.get("error", found) if isinstance(found, dict) else found
        if isinstance(error, dict):
            code, message = (str(error.get(key) or "") for key in ("code", "message"))
        elif isinstance(error, str):
            message = error
    except (ValueError, RecursionError):
        pass
    message = " ".join(encodable(message).split())
    return Problem(code[:80], _without(message, hidden)[:200])


def _without(text: str, hidden: str) -> str:
    return text.replace(hidden, "…") if hidden else text
