"""The command that makes tokens."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from engine.errors import UserError
from serve.http.auth import Access
from serve.http.tokens import VARIABLE, TokenSources
from serve.operations.deploy_file import read_settings, settings_of
from serve.operations.token import main
from serve.run import main as serve
from serve.settings import ServeSettings


def test_the_line_lets_the_token_in() -> None:
    printed = CliRunner().invoke(main.app, ["--name", "page"]).stdout.splitlines()
    token, line = printed[1].strip(), yaml.safe_load(printed[3])
    assert line == {"page": {"rights": "read", "sha256": hashlib.sha256(token.encode()).hexdigest()}}
    assert len(token) >= 43
    access = Access(ServeSettings.model_validate({"workspace": "w", "tokens": line}))
    assert access.caller(f"Bearer {token}".encode()) == ("page", "read")
    assert CliRunner().invoke(main.app, []).stdout.splitlines()[1].strip() != token


@pytest.mark.parametrize("name", ["no", "007", "2026-01-01", "null", "1e3", "true", "page"])
def test_the_line_keeps_any_name_however_it_is_read(tmp_path: Path, name: str) -> None:
    line = CliRunner().invoke(main.app, ["--name", name]).stdout.splitlines()[3].strip()
    assert list(yaml.safe_load(line)) == [name]
    path = tmp_path / "settings.yaml"
    for text in {line, line.replace("'", "") if name != "null" else line}:  # a person may leave quotes out
        path.write_text(f"{text}\n")
        assert list(TokenSources.of(ServeSettings(workspace="w", token_file=str(path)), {}).built) == [name]
        path.write_text(f"workspace: w\ntokens:\n  {text}\n")
        assert list(settings_of(read_settings(path), "s").tokens) == [name]
        assert list(serve.parse(["--settings", path]).application.tokens) == [name]


@pytest.mark.parametrize("name", ["", "a b", "a: {", "x" * 65])
def test_a_name_that_would_break_the_line_is_refused(name: str) -> None:
    assert isinstance(CliRunner().invoke(main.app, ["--name", name]).exception, UserError)


def line_of(name: str, *words: str) -> str:
    return CliRunner().invoke(main.app, ["--name", name, *words]).stdout.splitlines()[3].strip()


def test_tokens_come_from_settings_file_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text("\n".join(line_of(name, "--rights", "curate") for name in ("ada", "bob")) + "\n")
    own = {"old": "ab" * 32}
    settings = ServeSettings.model_validate({"workspace": "w", "tokens": own, "token_file": str(file)})
    found = TokenSources.of(settings, {VARIABLE: line_of("eve", "--rights", "publish")})
    rights = {name: grant.rights for name, grant in found.built.items()}
    assert rights == {"old": "publish", "ada": "curate", "bob": "curate", "eve": "publish"}
    assert TokenSources.of(ServeSettings(workspace="w"), {}).built == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no token"),
        ("{}", "holds no token"),
        ("ada: very-secret", "not the token itself"),
        ("ada: {rights: curate, sha256: very-secret}", "ada.sha256: .*not the token itself"),
        ("ada: {sha256: " + "a" * 64 + "}", "ada.rights: Field required"),
        ("ada: {rights: all, sha256: " + "a" * 64 + "}", "'read', 'curate' or 'publish'"),
        ("ada: " + "a" * 64 + "\nada: " + "b" * 64, "ada"),
        ("other: " + "a" * 64, "another token is called 'other'"),
    ],
)
def test_a_file_that_would_let_in_others_than_is_meant_is_refused(
    tmp_path: Path, text: str, told: str
) -> None:
    file = tmp_path / "tokens.yaml"
    file.write_text(text)
    given = {"workspace": "w", "tokens": {"other": "b" * 64}, "token_file": str(file)}
    with pytest.raises(UserError, match=told) as refused:
        TokenSources.of(ServeSettings.model_validate(given), {})
    assert str(file) in str(refused.value)
    assert "very-secret" not in str(refused.value)
    if text:
        with pytest.raises(UserError, match=VARIABLE):
            TokenSources.of(ServeSettings.model_validate({**given, "token_file": None}), {VARIABLE: text})


def test_a_file_of_tokens_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"no/such\.yaml"):
        TokenSources.of(ServeSettings(workspace="w", token_file="no/such.yaml"), {})
