"""The command that makes tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from engine.errors import UserError
from serve.http.auth import Access
from serve.operations.deploy_file import read_settings, settings_of
from serve.operations.token import main
from serve.run import main as serve
from serve.settings import ServeSettings


def test_the_line_lets_the_token_in() -> None:
    printed = CliRunner().invoke(main.app, ["--name", "page"]).stdout.splitlines()
    token, line = printed[1].strip(), yaml.safe_load(printed[3])
    assert line == {"tokens": {"page": hashlib.sha256(token.encode()).hexdigest()}}
    assert len(token) >= 43
    access = Access(ServeSettings.model_validate({"workspace": "w", **line}))
    assert access.caller(f"Bearer {token}".encode()) == "page"
    assert CliRunner().invoke(main.app, []).stdout.splitlines()[1].strip() != token


@pytest.mark.parametrize("name", ["no", "007", "2026-01-01", "null", "1e3", "true", "page"])
def test_the_line_keeps_any_name_however_it_is_read(tmp_path: Path, name: str) -> None:
    line = CliRunner().invoke(main.app, ["--name", name]).stdout.splitlines()[3].strip()
    assert list(yaml.safe_load(line)["tokens"]) == [name]
    path = tmp_path / "settings.yaml"
    for text in {line, line.replace("'", "") if name != "null" else line}:  # a person may leave quotes out
        path.write_text(f"workspace: w\n{text}\n")
        assert list(settings_of(read_settings(path), "s").tokens) == [name]
        assert list(serve.parse(["--settings", path]).application.tokens) == [name]


@pytest.mark.parametrize("name", ["", "a b", "a: {", "x" * 65])
def test_a_name_that_would_break_the_line_is_refused(name: str) -> None:
    assert isinstance(CliRunner().invoke(main.app, ["--name", name]).exception, UserError)
