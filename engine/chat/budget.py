"""Cap what a chat model may cost: requests, tokens and money, counted over all workers of a cache.

The count stands in a file beside the answers (``spent.json``), which workers of any machine change one after
the other. Before a prompt is sent, the most that it can cost is held; what it did cost takes the place of
that. So a cap is never exceeded, by any number of workers, as long as the endpoint keeps to the most tokens
asked of it. What a worker held when it was killed stays counted.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.chat.messages import Answer, Request
from engine.chat.settings import ChatError, ChatSettings, variable
from engine.errors import StorageError
from engine.storage.store import Store

FILE = "spent.json"
TRIES = 200
"""Times that the count is written anew because another worker wrote it meanwhile."""


class Spent(BaseModel):
    """What was spent: requests sent, tokens of prompts and of answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests: int = Field(default=0, ge=0)
    prompt_tokens: int = Field(default=0, ge=0)
    answer_tokens: int = Field(default=0, ge=0)

    def plus(self, requests: int, prompt_tokens: int, answer_tokens: int) -> Spent:
        """Return the sum; never less than nothing."""
        return Spent(
            requests=max(0, self.requests + requests),
            prompt_tokens=max(0, self.prompt_tokens + prompt_tokens),
            answer_tokens=max(0, self.answer_tokens + answer_tokens),
        )

    @property
    def tokens(self) -> int:
        """Tokens of prompts and answers together."""
        return self.prompt_tokens + self.answer_tokens

    def cost(self, settings: ChatSettings) -> float | None:
        """Return the money, in the unit of the prices; None where these are not given."""
        if settings.prompt_price is None or settings.answer_price is None:
            return None
        return (self.prompt_tokens * settings.prompt_price + self.answer_tokens * settings.answer_price) / 1e6


@dataclass(frozen=True)
class Budget:
    """The count of a cache's folder, and its caps.

    Args:
        file: of the count.
        settings: with the caps.
    """

    file: Store
    settings: ChatSettings

    def spent(self) -> Spent:
        """Return what was spent so far, what is held included."""
        return self._read()[0]

    def hold(self, request: Request[Answer]) -> None:
        """Count a request before it is sent, at the most that it can cost.

        Raises:
            ChatError: it could exceed a cap; nothing is counted.
        """
        most = request.most_prompt_tokens, request.max_tokens

        def held(before: Spent) -> Spent:
            after = before.plus(1, *most)
            self._check(before, after)
            return after

        self._change(held)

    def settle(self, request: Request[Answer], answer: Answer | None) -> None:
        """Put what a request did cost in the place of what was held.

        Args:
            request: as it was given to :meth:`hold`.
            answer: None: it was refused, or never came; then no tokens are counted.
        """
        prompt = answer_tokens = 0
        if answer is not None:  # one that was not counted by the endpoint costs what was held
            prompt = request.most_prompt_tokens if answer.prompt_tokens is None else answer.prompt_tokens
            answer_tokens = request.max_tokens if answer.answer_tokens is None else answer.answer_tokens
        self._change(
            lambda before: before.plus(
                0, prompt - request.most_prompt_tokens, answer_tokens - request.max_tokens
            )
        )

    def _check(self, before: Spent, after: Spent) -> None:
        caps = self.settings
        found: list[tuple[str, float | None, float, float]] = [
            ("max_requests", caps.max_requests, before.requests, after.requests),
            ("max_tokens", caps.max_tokens, before.tokens, after.tokens),
            ("max_cost", caps.max_cost, before.cost(caps) or 0.0, after.cost(caps) or 0.0),
        ]
        for name, cap, spent, needed in found:
            if cap is not None and needed > cap:
                raise ChatError(
                    f"{variable(name)}={cap:g}: the cap is reached: {spent:g} are counted in "
                    f"{self.file.uri}, and the next prompt may take {needed - spent:g}; what was answered is "
                    "kept. Raise the cap and run again, or delete the file to count anew",
                    public="the cap on what the chat model may cost is reached",
                )

    def _change(self, changed: Callable[[Spent], Spent]) -> None:
        for _ in range(TRIES):
            before, content = self._read()
            after = changed(before)
            if self.file.replace_bytes(after.model_dump_json().encode() + b"\n", content):
                return
        raise StorageError(f"{self.file.uri}: is written by other workers all the time; run with fewer")

    def _read(self) -> tuple[Spent, bytes | None]:
        content = self.file.read_if_there()
        if content is None:
            return Spent(), None
        try:
            return Spent.model_validate_json(content), content
        except ValidationError:
            raise StorageError(
                f"{self.file.uri}: not the count of what was spent; delete the file to count anew"
            ) from None
