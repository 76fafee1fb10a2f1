"""Send a prompt to an OpenAI-compatible endpoint, again where that may help, within limits.

What one request is, the ``openai`` library knows (:mod:`engine.chat.endpoint`). Asking again is done here,
and the library's own retries are off: they would not follow a response of status 200 that holds no answer,
but would follow one that says that nothing is left to spend; they know neither the caller's deadline nor the
caps, and their pauses cannot be set.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TypeVar
from urllib.parse import urlsplit

from engine.chat.exchange import (
    ExchangeError,
    LateError,
    Response,
    TooLargeError,
    UndecodableError,
)
from engine.chat.messages import (
    Answer,
    MalformedError,
    Problem,
    Request,
    read_problem,
)
from engine.chat.settings import (
    ChatDeadlineError,
    ChatError,
    ChatRefusalError,
    ChatSettings,
    variable,
)
from engine.query import Deadline

A = TypeVar("A", bound=Answer)

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same prompt may be answered; those from 500 all may pass."""

KEYS = (401, 403)
"""Statuses of a key that is missing, wrong, or not good for this."""

SPENT_UP = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 that waiting does not mend."""

ONE_PROMPT = (
    "context_length_exceeded",
    "string_above_max_length",
    "content_filter",
    "content_policy_violation",
)
"""Codes of a 400 or 422 that are about this prompt; any other would come for every prompt."""

TOO_LONG = ("context length", "context size", "context window")
"""What servers without such codes write of a prompt that is too long."""

FIRST_PAUSE_S = 0.5


@dataclass(frozen=True)
class Clock:
    """Time, replaced in tests.

    Args:
        now: seconds, monotonic.
        sleep: waits that many seconds.
        today: the time of day, to which dates in ``Retry-After`` are compared.
        jitter: a factor on a pause, so that workers do not come back together.
    """

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    today: Callable[[], datetime] = lambda: datetime.now(UTC)
    jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25)


class _AgainError(Exception):
    """An attempt that failed in a way that may pass.

    Args:
        why: in words that anybody may read.
        detail: what the endpoint or the network says of it.
        pause: seconds that the endpoint asks to wait.
    """

    def __init__(self, why: str, detail: str = "", pause: float = 0.0) -> None:
        super().__init__(f"{why} ({detail})" if detail else why)
        self.public, self.pause = f"the chat model: {why}", pause


class Account:
    """Is told of every attempt; this one keeps no account."""

    def begin(self, request: Request[Answer]) -> None:
        """Allow an attempt, or refuse it by an error."""

    def known(self, request: Request[Answer], answer: Answer | None) -> None:
        """Note what an attempt cost: that of its answer, or nothing.

        Not called where the prompt was taken and no answer came: then what it cost is not known.
        """

    def end(self) -> None:
        """Note that an attempt that was begun has ended, however."""


@dataclass
class ChatClient:
    """A client of one endpoint. Several threads may use it at once.

    Args:
        settings: of the endpoint.
        clock: replaced in tests.
        account: is told of every attempt.
    """

    settings: ChatSettings
    clock: Clock = field(default_factory=Clock)
    account: Account = field(default_factory=Account)

    def __post_init__(self) -> None:
        from engine.chat.endpoint import Endpoint  # the library takes long to import

        self._endpoint = Endpoint(self.settings)

    def close(self) -> None:
        """Close the connections."""
        self._endpoint.close()

    def ask(self, request: Request[A], deadline: Deadline | None = None) -> A:
        """Return the answer to a prompt.

        Args:
            request: the prompt.
            deadline: when the caller wants what there is; no attempt goes on past it.

        Raises:
            ChatError: the endpoint cannot be reached, refuses the key or answers no completions, after all
                attempts or before the deadline.
            ChatRefusalError: this prompt is not answered.
        """
        url = self.settings.address(request.path)
        pause = FIRST_PAUSE_S
        for attempt in range(1, self.settings.attempts + 1):
            self._seconds(url, deadline)  # so that nothing is counted of a prompt that comes too late
            self.account.begin(request)
            try:
                return self._attempt(request, deadline)
            except _AgainError as error:
                wait = max(error.pause, pause * self.clock.jitter())
                failed = error
            finally:
                self.account.end()
            self._give_up_or_wait(failed, url, attempt, wait, deadline)
            pause = min(2 * pause, self.settings.longest_pause)
        raise AssertionError("the last attempt returns or raises")

    def _seconds(self, url: str, deadline: Deadline | None) -> float:
        """Return how long an attempt may take.

        Raises:
            ChatError: the deadline has come.
        """
        seconds = (
            self.settings.timeout if deadline is None else min(self.settings.timeout, deadline.remaining())
        )
        if seconds <= 0:
            raise ChatDeadlineError(f"{url}: the deadline came before the answer")
        return seconds

    def _give_up_or_wait(
        self, error: _AgainError, url: str, attempt: int, wait: float, deadline: Deadline | None
    ) -> None:
        """Wait before the next attempt.

        Raises:
            ChatError: there is none, or no time for it.
        """
        about, public = f"{url}: {error}", error.public
        if deadline is not None and deadline.remaining() <= 0:
            late = "; the deadline came before the answer"
            raise ChatDeadlineError(about + late, public + late) from None
        if attempt == self.settings.attempts:
            asked = "; asked once" if attempt == 1 else f"; asked {attempt} times"
            raise ChatError(
                f"{about}{asked}. Check the address and the network, and run again", public + asked
            ) from None
        if deadline is not None and wait >= deadline.remaining():
            late = "; the deadline leaves no time to ask again"
            raise ChatDeadlineError(about + late, public + late) from None
        if error.pause > self.settings.longest_pause:
            wanted = f"; it asks to wait {error.pause:.0f} s"
            raise ChatError(
                f"{about}{wanted}. Run again then, or set {variable('longest_pause')}", public + wanted
            ) from None
        self.clock.sleep(min(wait, max(self.settings.longest_pause, error.pause)))

    def _attempt(self, request: Request[A], deadline: Deadline | None) -> A:
        """Send a prompt once; the whole exchange is given up when its time is over."""
        url = self.settings.address(request.path)
        try:
            seconds = self._seconds(url, deadline)  # other prompts may have been waited for at a cap
        except ChatDeadlineError:
            self.account.known(request, None)
            raise
        try:
            response = self._endpoint.post(request.path, request.body, seconds)
        except ExchangeError as error:
            if not error.sent:
                self.account.known(request, None)
            raise self._broken(error, url, seconds) from None
        if response.status == HTTPStatus.OK:
            try:
                answer = request.read(response.body, self.settings.key.get_secret_value())
            except MalformedError as error:
                raise _AgainError("the answer cannot be used", str(error)) from None
            self.account.known(request, answer)
            return answer
        self.account.known(request, None)
        raise self._failure(response, url)

    def _broken(self, error: ExchangeError, url: str, seconds: float) -> Exception:
        """Return what to raise where there is no whole response."""
        match error:
            case LateError(answered=True):
                return _AgainError(f"the answer was not whole within {seconds:.3g} s")
            case LateError():
                return _AgainError(f"no {'answer' if error.sent else 'connection'} within {seconds:.3g} s")
            case TooLargeError():
                limit = self.settings.max_response_bytes
                large = f"the answer has more than {limit} bytes, and is not read"
                return ChatRefusalError(
                    f"{url}: {large}; {variable('max_response_bytes')} is the limit",
                    public=f"the chat model: {large}",
                )
            case UndecodableError():
                return _AgainError("the answer cannot be decompressed")
        return _AgainError("the connection fails" if error.sent else "no connection", error.detail)

    def _failure(self, response: Response, url: str) -> Exception:
        """Return what to raise of a response that is no answer."""
        status = response.status
        problem = read_problem(response.body, self.settings.key.get_secret_value())
        passes = status in AGAIN or status >= 500
        if passes and not (status == 429 and problem.code in SPENT_UP):
            pause = self._retry_after(response.headers.get("retry-after", ""))
            return _AgainError(f"status {status}", problem.message, pause)
        refused = status == 413 or (status in (400, 422) and _of_one_prompt(problem))
        kind = ChatRefusalError if refused else ChatError
        meaning = "; this prompt is not answered" if refused else self._meaning(response)
        # What comes with 401 and 403 may hold a part of the key; with a redirection, anything.
        told = f" ({problem.message})" if problem.message and status >= 400 and status not in KEYS else ""
        about = f"status {status}"
        return kind(f"{url}: {about}{told}{meaning}", public=f"the chat model: {about}")

    def _meaning(self, response: Response) -> str:
        """Return what a status says of all prompts alike, and the way out."""
        status, url = response.status, variable("url")
        if status in KEYS:
            given = "the key is refused" if self.settings.key.get_secret_value() else "it wants a key"
            return f": {given}; check {variable('key')} and what it may use"
        if status == 429:
            return "; the account has nothing left to spend"
        if 300 <= status < 400:
            return f": {_redirected(response)}; set {url} to the address itself"
        if status in (404, 405):
            return f"; check {url} and {variable('model')}"
        return f"; check {variable('model')} and the stage's settings"

    def _retry_after(self, given: str) -> float:
        """Return the seconds that a ``Retry-After`` asks for; 0 where it says nothing that can be read."""
        text = given.strip()
        if text.isascii() and text.replace(".", "", 1).isdigit() and len(text) < 12:
            return float(text)
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return 0.0
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return max(0.0, (at - self.clock.today()).total_seconds())


def _of_one_prompt(problem: Problem) -> bool:
    said = problem.message.lower()
    return problem.code in ONE_PROMPT or any(words in said for words in TOO_LONG)


def _redirected(response: Response) -> str:
    """Return that an endpoint redirects, and where to; the key is sent nowhere else."""
    try:
        target = urlsplit(response.headers.get("location", ""))
        host = target.hostname
    except ValueError:
        host = None
    return "it redirects" + (f" to {host}" if host else "") + ", where the key is not sent"
