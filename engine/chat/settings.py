"""Read from the environment where a chat model is, and what may be spent on it.

Every variable begins with ``SEEDSET_CHAT_``; :class:`ChatSettings` has them all. The key stands in the
environment alone: it is in no file, no message and no ``repr``.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from engine.errors import QueryError, UserError

PREFIX = "SEEDSET_CHAT_"
COMPLETIONS = "/chat/completions"
"""The end of the address that chats are posted to, below the base address that providers name."""


SCORES = "/completions"
"""The end of the address that names are scored at."""


class ChatError(UserError):
    """A chat model that cannot be asked: no endpoint, a key refused, a cap reached, an answer missing."""

    status = 503
    public = "the chat model cannot be asked"


class ChatDeadlineError(ChatError):
    """The caller's deadline came before the answer."""

    status = 504
    public = "the chat model did not answer before the deadline"


class ChatRefusalError(QueryError):
    """One prompt that the endpoint does not answer, such as one that is too long; others may be answered."""

    public = "the chat model does not answer this query"


def _address(given: str) -> str:
    """Return the address to post to, of a base address (``https://host/v1``) or of itself."""
    try:
        parts = urlsplit(given.strip())
        has_port_0 = parts.port == 0
    except ValueError:
        raise ValueError("is no address; write https://host/v1") from None
    if not given.strip().isprintable():
        raise ValueError("holds a character that no address has; copy the address again")
    if parts.scheme not in ("http", "https") or not parts.hostname or has_port_0:
        raise ValueError("is no address of HTTP; write https://host/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError(f"holds more than an address; write https://host/v1, and the key in {PREFIX}KEY")
    base = given.strip().rstrip("/")
    return base if base.endswith(COMPLETIONS) else base + COMPLETIONS


def _sendable(given: SecretStr) -> SecretStr:
    """Return a key without blanks around it; one that no header can hold is refused without being shown."""
    key = given.get_secret_value().strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ValueError("holds a character that cannot be sent; copy the key again")
    return SecretStr(key)


def _switch(given: object) -> object:
    """Return what a variable that is on or off says; an empty one is off."""
    return given or False


Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ChatSettings(BaseModel):
    """Settings of a chat endpoint: each field is the variable ``SEEDSET_CHAT_`` and its name in capitals.

    What an answer depends on (the model's name apart) is a setting of the stage that asks, not of this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    url: Annotated[str, AfterValidator(_address)] = Field(
        default="", validate_default=False, description="Base address of the endpoint: https://host/v1."
    )
    model: str = Field(default="", description="Name of the model, as the endpoint knows it.")
    key: Annotated[SecretStr, AfterValidator(_sendable)] = Field(
        default=SecretStr(""), description="Key, sent as a bearer token; none: no key is sent."
    )
    cache: str = Field(
        default="",
        description="Folder or s3:// prefix of the answers kept; default: chat/ in the workspace.",
    )
    replay: Annotated[bool, BeforeValidator(_switch)] = Field(
        default=False, description="1: answer from the cache alone; nothing is sent."
    )
    timeout: float = Field(
        default=120,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds of one request, from connecting to the last byte of the answer.",
    )
    attempts: int = Field(default=5, ge=1, le=20, description="Times that a prompt is sent at most.")
    longest_pause: float = Field(
        default=60,
        ge=0,
        le=3600,
        allow_inf_nan=False,
        description="Seconds that are waited at most before a prompt is sent again.",
    )
    concurrency: int = Field(default=4, ge=1, le=64, description="Prompts under way at once, of a worker.")
    max_response_bytes: int = Field(
        default=4 << 20, ge=1024, description="A response of more bytes is not read."
    )
    max_requests: int | None = Field(default=None, ge=0, description="Cap on requests sent.")
    max_tokens: int | None = Field(
        default=None, ge=0, description="Cap on tokens, of prompts and answers together."
    )
    max_cost: Number | None = Field(default=None, description="Cap on money, in the unit of the prices.")
    prompt_price: Number | None = Field(default=None, description="Price of a million tokens of prompts.")
    answer_price: Number | None = Field(default=None, description="Price of a million tokens of answers.")

    @classmethod
    def of(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read the settings of an environment, by default that of this process; empty variables are unset.

        Raises:
            ChatError: a variable that is not known, or with a value that cannot be; names it.
        """
        environment = os.environ if environment is None else environment
        given = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in environment.items()
            if name.startswith(PREFIX) and value.strip()
        }
        if unknown := sorted(given.keys() - cls.model_fields.keys()):
            known = ", ".join(variable(name) for name in cls.model_fields)
            raise ChatError(f"{variable(unknown[0])}: no such variable; there are {known}")
        try:
            found = cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False, include_context=False)[0]
            said = first["msg"].removeprefix("Value error, ")
            raise ChatError(f"{variable(str(first['loc'][0]))}: {said}") from None
        found.check()
        return found

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            ChatError: a cap on money without prices; a key that would be sent in the clear.
        """
        if self.max_cost is not None and (self.prompt_price is None or self.answer_price is None):
            raise ChatError(
                f"{variable('max_cost')}: needs the prices of a million tokens; set "
                f"{variable('prompt_price')} and {variable('answer_price')}"
            )
        parts = urlsplit(self.url)
        if self.key.get_secret_value() and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ChatError(
                f"{variable('url')}: would send the key in the clear; write https://, or unset "
                f"{variable('key')} if the endpoint takes none"
            )

    def address(self, path: str) -> str:
        """Return the address below the base address that a kind of request is posted to; "" without one."""
        return self.url and self.url.removesuffix(COMPLETIONS) + path

    def missing(self, model: str) -> str:
        """Return which variable is not set without which nothing can be asked; "" if none is.

        Args:
            model: the model that is asked.
        """
        if not model:
            return f"{variable('model')} is not set: the name of the chat model"
        if not self.url and not self.replay:
            return (
                f"{variable('url')} is not set: the address of an OpenAI-compatible endpoint, such as "
                f"https://host/v1 (or {variable('replay')}=1 to answer from the cache)"
            )
        return ""


def unavailable(model: str) -> str:
    """Return which variable of this process' environment is missing or wrong; "" if none is.

    Args:
        model: that is asked; "": the environment's.
    """
    try:
        settings = ChatSettings.of()
    except ChatError as error:
        return str(error)
    return settings.missing(model or settings.model)


def usable_settings(model: str, asker: str) -> ChatSettings:
    """Return the settings of this process' environment.

    Args:
        model: that is asked; "": the environment's.
        asker: what asks it, named in the error.

    Raises:
        ChatError: a variable is missing or wrong.
    """
    settings = ChatSettings.of()
    if why := settings.missing(model or settings.model):
        raise ChatError(f"{asker}: {why}")
    return settings


def model_in_environment() -> str:
    """Return the model that the environment names; "" where it cannot be read: said where it is opened."""
    try:
        return ChatSettings.of().model
    except ChatError:
        return ""


def address_in_environment(path: str) -> str:
    """Return where a kind of request is posted; "" where it cannot be read: said where it is opened."""
    try:
        return ChatSettings.of().address(path)
    except ChatError:
        return ""


def variable(field: str) -> str:
    """Return the name of the environment's variable of a field of :class:`ChatSettings`."""
    return PREFIX + field.upper()


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    name = host.rstrip(".").lower()
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
