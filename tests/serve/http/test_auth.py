"""Tokens, and what is told of rates."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from pydantic import ValidationError

from serve.http.auth import EVERYBODY, Access
from serve.http.errors import ProblemError
from serve.settings import ServeSettings


class Clock:
    """Seconds that pass when a test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def access(clock: Clock | None = None, **given: object) -> Access:
    settings = ServeSettings.model_validate({"workspace": "w", **given})
    return Access(settings, clock or Clock())


TOKENS = {name: hashlib.sha256(f"token of {name}".encode()).hexdigest() for name in ("a", "b")}


@pytest.mark.parametrize(
    ("header", "caller"),
    [(b"Bearer token of a", "a"), (b"bearer  token of b", "b")],
)
def test_a_token_names_its_caller(header: bytes, caller: str) -> None:
    assert access(tokens=TOKENS).caller(header).name == caller


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        b"Bearer token of c",
        b"Basic token of a",
        b"token of a",
        b"Bearer \xff",
    ],
)
def test_other_headers_are_refused(header: bytes | None) -> None:
    with pytest.raises(ProblemError) as refused:
        access(tokens=TOKENS).caller(header)
    assert refused.value.problem.status == 401
    assert refused.value.problem.headers == {"WWW-Authenticate": "Bearer"}


def test_a_token_with_an_invisible_sign_is_told_apart_and_not_repeated() -> None:
    for header, told in (("Bearer token of a\u200b".encode(), True), (b"Bearer wrong", False)):
        with pytest.raises(ProblemError) as refused:
            access(tokens=TOKENS).caller(header)
        assert ("copy it again" in str(refused.value)) == told
        assert "token of a" not in str(refused.value)


@pytest.mark.parametrize("secret", ["my-very-secret", "0" * 63, ["my-very-secret"]])
def test_what_stands_where_a_digest_belongs_is_not_shown(secret: object) -> None:
    with pytest.raises(ValidationError) as wrong:
        ServeSettings.model_validate({"workspace": "w", "tokens": {"page": secret}})
    assert "not the token itself" in str(wrong.value)
    assert "very-secret" not in str(wrong.value)
    assert "000" not in str(wrong.value)


def test_a_digest_may_be_written_in_capitals_and_end_with_a_line_break() -> None:
    written = {name: f"{digest.upper()}\n" for name, digest in TOKENS.items()}
    assert access(tokens=written).caller(b"Bearer token of b").name == "b"


def test_without_tokens_everybody_is_one_caller() -> None:
    assert access().caller(None) == access().caller(b"Bearer anything") == EVERYBODY


def test_above_the_rate_it_is_said_when_to_come_again() -> None:
    guard = access(tokens=TOKENS, rate_per_minute=30, burst=1)

    async def ask() -> None:
        await guard.spend("a", 1)
        await guard.spend("b", 1)
        with pytest.raises(ProblemError, match="more than 30 queries a minute") as refused:
            await guard.spend("a", 1)
        assert (refused.value.problem.status, refused.value.problem.retry_after_s) == (429, pytest.approx(2))

    asyncio.run(ask())


def test_without_a_rate_nobody_waits() -> None:
    asyncio.run(access().spend(EVERYBODY.name, 10**9))
