"""Ask a chat model, from the cache where it has answered before, within the caps."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from engine.chat.budget import FILE, Budget, Spent
from engine.chat.cache import AnswerCache
from engine.chat.client import Account, ChatClient, Clock
from engine.chat.messages import Answer, Request
from engine.chat.settings import ChatDeadlineError, ChatError, ChatSettings, variable
from engine.query import Deadline
from engine.storage.bundle import Bundle
from engine.storage.store import Store

A = TypeVar("A", bound=Answer)

RESTING_S = 5.0
"""Seconds in which an endpoint that failed is not asked again: each prompt would wait for it anew."""


@dataclass
class Chat:
    """A chat model with its cache and its count of what was spent. Several threads may use it at once.

    Args:
        settings: of the endpoint.
        cache: answers that are kept.
        budget: what was spent.
        clock: replaced in tests.
    """

    settings: ChatSettings
    cache: AnswerCache
    budget: Budget
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._failed: tuple[float, ChatError] | None = None
        self._client: ChatClient | None = None

    @classmethod
    def open(cls, settings: ChatSettings, default_folder: Store, clock: Clock | None = None) -> Chat:
        """Return the model of the settings; unless they name one, ``default_folder`` keeps the answers."""
        folder = Store.open(settings.cache) if settings.cache else default_folder
        return cls(settings, AnswerCache(folder), Budget(folder / FILE, settings), clock or Clock())

    @classmethod
    def of_bundle(cls, settings: ChatSettings, bundle: Bundle) -> Chat:
        """Return the model of the settings; unless they name a place, answers are kept in the workspace."""
        folder = bundle.workspace.chat if bundle.workspace else Store.open(bundle.folder.parents[1] / "chat")
        return cls.open(settings, folder)

    def connect(self) -> None:
        """Make ready what sends prompts, if any may be sent.

        Done by the first prompt otherwise, from whose deadline it takes seconds: a library is imported. What
        is wrong with the environment's proxy is no failure yet: each prompt says so, and other methods work.
        """
        if self.settings.url and not self.settings.replay:
            with suppress(ChatError):
                self._opened()

    def account(self) -> str:
        """Return how many requests, tokens and, with prices, how much money are counted beside the cache."""
        spent = self.spent()
        cost = spent.cost(self.settings)
        money = "" if cost is None else f" for {cost:.4g}"
        counted = f"{spent.requests} requests, {spent.tokens} tokens{money}"
        return f"chat: {counted} are counted in {self.budget.file.uri}"

    def ask(self, request: Request[A], deadline: Deadline | None = None) -> A:
        """Return the answer to a prompt.

        Raises:
            ChatError: it is not in the cache and cannot be had: nothing may be sent, a cap is reached, or the
                endpoint fails.
            ChatRefusalError: this prompt is not answered.
            StorageError: the cache cannot be used.
        """
        kept = self.cache.get(request)
        if kept is not None:
            self._count(cached=1)
            return kept
        if self.settings.replay:
            raise ChatError(
                f"{self.cache.folder.uri}: no answer of {request.model!r} is kept to the prompt "
                f"{request.about()} ({self.cache.file(request).name}), and {variable('replay')} is set; "
                "unset it to ask the endpoint",
                public="no answer of the chat model is kept to this query, and it is not asked",
            )
        self._check_rested()
        try:
            answer = self._opened().ask(request, deadline)
        except ChatDeadlineError:
            raise
        except ChatError as error:
            self._failed = self.clock.now() + RESTING_S, error
            raise
        return self.cache.put(request, answer)

    def counts(self) -> Mapping[str, int]:
        """Return what this process did: requests sent, answers from the cache, tokens that were counted."""
        names = ("requests", "cached", "prompt_tokens", "answer_tokens")
        with self._lock:
            return {name: self._counts[name] for name in names}

    def spent(self) -> Spent:
        """Return what was spent over all workers."""
        return self.budget.spent()

    def _check_rested(self) -> None:
        """Raise the last failure again while the endpoint rests."""
        if self._failed is not None and self.clock.now() < self._failed[0]:
            raise type(self._failed[1])(str(self._failed[1]), public=self._failed[1].public)

    def _opened(self) -> ChatClient:
        with self._lock:
            if self._client is None:
                account = _SharedAccount(self.budget, self._count)
                self._client = ChatClient(self.settings, self.clock, account)
            return self._client

    def _count(self, **more: int) -> None:
        with self._lock:
            self._counts.update(more)


class _SharedAccount(Account):
    """The account of a budget. At a cap, attempts under way are waited for: they cost less than they hold.

    Args:
        budget: shared with other processes.
        count: is told what was sent.
    """

    def __init__(self, budget: Budget, count: Callable[..., None]) -> None:
        self._budget, self._count = budget, count
        self._changed = threading.Condition()
        self._under_way = 0

    def begin(self, request: Request[Answer]) -> None:
        """Hold the most that an attempt can cost.

        Raises:
            ChatError: a cap is reached.
        """
        with self._changed:
            while True:
                try:
                    self._budget.hold(request)
                    break
                except ChatError:
                    if not self._under_way:
                        raise
                    self._changed.wait()
            self._under_way += 1
        self._count(requests=1)

    def known(self, request: Request[Answer], answer: Answer | None) -> None:
        """Put what an attempt did cost in the place of what was held."""
        self._budget.settle(request, answer)
        if answer is not None:
            self._count(prompt_tokens=answer.prompt_tokens or 0, answer_tokens=answer.answer_tokens or 0)

    def end(self) -> None:
        """Wake those that wait for the cap."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
