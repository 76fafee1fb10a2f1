"""The command that makes tokens."""

from __future__ import annotations

import hashlib

import pytest
import yaml
from typer.testing import CliRunner

from engine.errors import UserError
from serve.http.auth import Access
from serve.operations.token import main
from serve.settings import ServeSettings


def test_the_line_lets_the_token_in() -> None:
    printed = CliRunner().invoke(main.app, ["--name", "page"]).stdout.splitlines()
    token, line = printed[1].strip(), yaml.safe_load(printed[3])
    assert line == {"tokens": {"page": hashlib.sha256(token.encode()).hexdigest()}}
    assert len(token) >= 43
    access = Access(ServeSettings.model_validate({"workspace": "w", **line}))
    assert access.caller(f"Bearer {token}".encode()) == "page"
    assert CliRunner().invoke(main.app, []).stdout.splitlines()[1].strip() != token


@pytest.mark.parametrize("name", ["", "a b", "a: {", "x" * 65])
def test_a_name_that_would_break_the_line_is_refused(name: str) -> None:
    assert isinstance(CliRunner().invoke(main.app, ["--name", name]).exception, UserError)
