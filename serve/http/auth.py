"""Check bearer tokens and their rights, and limit each caller's rate of queries."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable
from typing import NamedTuple

from serve.http.errors import Problem, ProblemError
from serve.http.rights import includes
from serve.http.tokens import KnownTokens, TokenSources
from serve.limits.accounts import Accounts, Limit
from serve.settings import RIGHTS, Right, ServeSettings


class Caller(NamedTuple):
    """Who asks: the name of a token, and what it may do."""

    name: str
    rights: Right


EVERYBODY = Caller("", RIGHTS[-1])
"""The caller where no tokens are configured: all share one rate, and may do all."""


def digest_of(token: bytes) -> str:
    """Return the digest that the settings hold of a token."""
    return hashlib.sha256(token).hexdigest()


class Access:
    """The tokens and rates of the settings. Used from one event loop only.

    Args:
        settings: with ``tokens``, ``rate_per_minute``, ``burst``.
        clock: monotonic, in seconds.
        limit: counts for several replicas; None: this process counts what it is asked.
        tokens: that let in; None: those of the settings.
    """

    def __init__(
        self,
        settings: ServeSettings,
        clock: Callable[[], float] = time.monotonic,
        limit: Limit | None = None,
        tokens: KnownTokens | None = None,
    ) -> None:
        self.tokens = tokens or KnownTokens(TokenSources(settings.tokens))
        self._per_minute = settings.rate_per_minute
        if limit is None and settings.rate_per_minute:
            limit = Accounts(settings.rate_per_minute / 60, settings.burst, clock)
        self._limit = limit

    def caller(self, authorization: bytes | None) -> Caller:
        """Return whose token is in an ``Authorization`` header.

        Raises:
            ProblemError: tokens are wanted, and this is none of them (401).
        """
        if not self.tokens.wanted:
            return EVERYBODY
        scheme, _, token = (authorization or b"").partition(b" ")
        token = token.strip()
        digest = digest_of(token)
        # Every entry is compared, in constant time: how long it takes reveals nothing of the tokens.
        known = self.tokens.grants
        found = [name for name, grant in known.items() if hmac.compare_digest(grant.sha256, digest)]
        if scheme.lower() != b"bearer" or not found:
            message = "send `Authorization: Bearer TOKEN` with a token that this service knows"
            if any(not 0x20 <= byte <= 0x7E for byte in token):
                message += "; this one holds a sign that is none of ASCII's visible ones: copy it again"
            raise ProblemError(Problem("unauthorized", message, 401))
        return Caller(found[0], known[found[0]].rights)  # a token that stands under two names is the first

    def check(self, caller: Caller, needed: Right) -> None:
        """Check that a caller has a right.

        Raises:
            ProblemError: it lacks it (403).
        """
        if not includes(caller.rights, needed):
            message = (
                f"this needs a token with the right {needed!r}; that of {caller.name!r} has {caller.rights!r}"
            )
            raise ProblemError(Problem("forbidden", message, 403))

    async def spend(self, caller: str, queries: int) -> None:
        """Take queries off a caller's account.

        Raises:
            ProblemError: the account does not hold them yet (429); says when it will.
        """
        if self._limit is None:
            return
        wait_s = await self._limit.spend(caller, queries)
        if wait_s:
            message = f"more than {self._per_minute} queries a minute; wait and ask again"
            raise ProblemError(Problem("rate_limited", message, 429, retry_after_s=wait_s))
