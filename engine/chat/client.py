"""Send a prompt to an OpenAI-compatible endpoint, again where that may help, within limits."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

import httpx

from engine.chat.messages import (
    ChatAnswer,
    ChatRequest,
    MalformedError,
    Problem,
    read_completion,
    read_problem,
)
from engine.chat.settings import (
    ChatDeadlineError,
    ChatError,
    ChatRefusalError,
    ChatSettings,
    is_loopback,
    variable,
)
from engine.external_errors import first_line
from engine.query import Deadline

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same prompt may be answered; those from 500 all may pass."""

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
    """An attempt that failed in a way that may pass; ``pause``: seconds that the endpoint asks to wait."""

    def __init__(self, why: str, pause: float = 0.0) -> None:
        super().__init__(why)
        self.pause = pause


class Account:
    """Is told of every attempt; this one keeps no account."""

    def begin(self, request: ChatRequest) -> None:
        """Allow an attempt, or refuse it by an error."""

    def known(self, request: ChatRequest, answer: ChatAnswer | None) -> None:
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
        self._http = _http_client(self.settings)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ask(self, request: ChatRequest, deadline: Deadline | None = None) -> ChatAnswer:
        """Return the answer to a prompt.

        Args:
            request: the prompt.
            deadline: when the caller wants what there is; no attempt goes on past it.

        Raises:
            ChatError: the endpoint cannot be reached, refuses the key or answers no completions, after all
                attempts or before the deadline.
            ChatRefusalError: this prompt is not answered.
        """
        pause = FIRST_PAUSE_S
        for attempt in range(1, self.settings.attempts + 1):
            self._seconds(deadline)  # so that nothing is counted of a prompt that comes too late
            self.account.begin(request)
            try:
                return self._attempt(request, deadline)
            except _AgainError as error:
                wait = max(error.pause, pause * self.clock.jitter())
                failed = error
            finally:
                self.account.end()
            self._give_up_or_wait(failed, attempt, wait, deadline)
            pause = min(2 * pause, self.settings.longest_pause)
        raise AssertionError("the last attempt returns or raises")

    def _seconds(self, deadline: Deadline | None) -> float:
        """Return how long an attempt may take.

        Raises:
            ChatError: the deadline has come.
        """
        seconds = (
            self.settings.timeout if deadline is None else min(self.settings.timeout, deadline.remaining())
        )
        if seconds <= 0:
            raise ChatDeadlineError(f"{self.settings.url}: the deadline came before the answer")
        return seconds

    def _give_up_or_wait(
        self, error: _AgainError, attempt: int, wait: float, deadline: Deadline | None
    ) -> None:
        """Wait before the next attempt.

        Raises:
            ChatError: there is none, or no time for it.
        """
        about = f"{self.settings.url}: {error}"
        if deadline is not None and deadline.remaining() <= 0:
            raise ChatDeadlineError(f"{about}; the deadline came before the answer") from None
        if attempt == self.settings.attempts:
            times = "once" if attempt == 1 else f"{attempt} times"
            raise ChatError(
                f"{about}; asked {times}. Check the address and the network, and run again"
            ) from None
        if deadline is not None and wait >= deadline.remaining():
            raise ChatDeadlineError(f"{about}; the deadline leaves no time to ask again") from None
        if error.pause > self.settings.longest_pause:
            raise ChatError(
                f"{about}; it asks to wait {error.pause:.0f} s. Run again then, or set "
                f"{variable('longest_pause')}"
            ) from None
        self.clock.sleep(min(wait, max(self.settings.longest_pause, error.pause)))

    def _attempt(self, request: ChatRequest, deadline: Deadline | None) -> ChatAnswer:
        """Send a prompt once.

        An endpoint that sends a little of its answer at a time is given up when the time is over; one that
        then is silent, or sends its headers so, may take longer.
        """
        try:
            seconds = self._seconds(deadline)  # other prompts may have been waited for at a cap
        except ChatDeadlineError:
            self.account.known(request, None)
            raise
        end = self.clock.now() + seconds
        try:
            with self._http.stream("POST", self.settings.url, json=request.body, timeout=seconds) as response:
                body = self._body(response, end)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            self.account.known(request, None)
            raise _AgainError(f"no connection ({first_line(error)})") from None
        except (httpx.InvalidURL, UnicodeError) as error:  # of hosts, the encoding's
            self.account.known(request, None)
            raise ChatError(
                f"{self.settings.url}: no address ({first_line(error)}); check {variable('url')}"
            ) from None
        except httpx.TimeoutException:
            raise _AgainError(f"no answer within {seconds:.3g} s") from None
        except httpx.TransportError as error:
            raise _AgainError(f"the connection fails ({first_line(error)})") from None
        except httpx.DecodingError:
            raise _AgainError("the answer cannot be decompressed") from None
        if response.status_code == HTTPStatus.OK:
            try:
                answer = read_completion(body, self.settings.key.get_secret_value())
            except MalformedError as error:
                raise _AgainError(f"the answer cannot be used: {error}") from None
            self.account.known(request, answer)
            return answer
        self.account.known(request, None)
        raise self._failure(response, body)

    def _body(self, response: httpx.Response, end: float) -> bytes:
        limit = self.settings.max_response_bytes
        body = bytearray()
        for chunk in response.iter_bytes():
            body += chunk
            if len(body) > limit:
                raise ChatRefusalError(
                    f"{self.settings.url}: the answer has more than {limit} bytes, and is not read; "
                    f"{variable('max_response_bytes')} is the limit"
                )
            if self.clock.now() > end:
                raise _AgainError("the answer was not whole in time")
        return bytes(body)

    def _failure(self, response: httpx.Response, body: bytes) -> Exception:
        """Return what to raise of a response that is no answer."""
        settings, status = self.settings, response.status_code
        problem = read_problem(body, settings.key.get_secret_value())
        about = f"{settings.url}: status {status}"
        told = f"{about} ({problem.message})" if problem.message else about
        if status in (401, 403):  # what it says may hold a part of the key
            given = "the key is refused" if settings.key.get_secret_value() else "it wants a key"
            return ChatError(f"{about}: {given}; check {variable('key')} and what it may use")
        if status == 429 and problem.code in SPENT_UP:
            return ChatError(f"{told}; the account has nothing left to spend")
        if status in AGAIN or status >= 500:
            about = f"status {status}" + (f" ({problem.message})" if problem.message else "")
            return _AgainError(about, self._retry_after(response.headers.get("retry-after", "")))
        if 300 <= status < 400:
            return ChatError(f"{_redirected(about, response)}; set {variable('url')} to the address itself")
        if status == 413 or (status in (400, 422) and _of_one_prompt(problem)):
            return ChatRefusalError(f"{told}; this prompt is not answered")
        if status in (404, 405):
            return ChatError(f"{told}; check {variable('url')} and {variable('model')}")
        return ChatError(f"{told}; check {variable('model')} and the stage's settings")

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


def _redirected(about: str, response: httpx.Response) -> str:
    """Return that an endpoint redirects, and where to; the key is sent nowhere else."""
    try:
        target = urlsplit(response.headers.get("location", ""))
        host = target.hostname
    except ValueError:
        host = None
    return f"{about}: it redirects" + (f" to {host}" if host else "") + ", where the key is not sent"


def _http_client(settings: ChatSettings) -> httpx.Client:
    """Return a client that checks certificates and follows no redirect; this machine is asked without proxy.

    Raises:
        ChatError: the environment's proxy or certificates cannot be used.
    """
    key = settings.key.get_secret_value()
    headers = {"accept": "application/json", "accept-encoding": "identity"}
    parts = urlsplit(settings.url)
    here = is_loopback(parts.hostname or "")
    try:
        direct = {f"{scheme}://": None for scheme in ("http", "https", "all")} if here else {}
        return httpx.Client(
            headers=headers | ({"authorization": f"Bearer {key}"} if key else {}),
            follow_redirects=False,
            mounts=direct,
            # The environment also names certificates, which https needs on this machine as well.
            trust_env=not here or parts.scheme == "https",
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
    except (ValueError, ImportError, OSError, httpx.InvalidURL) as error:
        raise ChatError(
            f"{settings.url}: no connection can be made ({first_line(error)}); check HTTP_PROXY and "
            "SSL_CERT_FILE"
        ) from None
