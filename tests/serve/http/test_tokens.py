"""A file of tokens that changes while the service runs."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from engine.errors import UserError
from serve.http import tokens
from serve.http.auth import Access
from serve.http.errors import ProblemError
from serve.http.routes import create_app
from serve.http.tokens import UNUSABLE, KnownTokens, TokenSources
from serve.settings import ServeSettings
from serve.telemetry.metrics import Metrics
from tests.support.services import MakeService

GAUGE = "seedset_tokens_unusable"


def line(name: str, rights: str = "read") -> str:
    return f"{name}: {{rights: {rights}, sha256: {hashlib.sha256(name.encode()).hexdigest()}}}\n"


def sources(file: Path, **given: object) -> TokenSources:
    return TokenSources.of(
        ServeSettings.model_validate({"workspace": "w", "token_file": str(file), **given}), {}
    )


def look(known: KnownTokens) -> None:
    """Look twice: a change counts once it stays."""
    known.look()
    known.look()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "tokens.yaml"
    file.write_text(line("ada") + line("bob", "curate"))
    return file


def test_what_is_taken_back_or_added_counts_without_a_new_service(
    file: Path, make_service: MakeService
) -> None:
    own = {"own": {"rights": "read", "sha256": hashlib.sha256(b"own").hexdigest()}}
    known = KnownTokens(sources(file, tokens=own))
    client = TestClient(create_app(make_service(), tokens=known))

    def status(token: str, path: str = "/v1/methods") -> int:
        return client.get(path, headers={"authorization": f"Bearer {token}"}).status_code

    assert [status(token) for token in ("ada", "bob", "own", "eve")] == [200, 200, 200, 401]
    file.write_text(line("bob", "publish") + line("eve"))
    known.look()
    assert status("ada") == 200, "a change is taken once it stays"
    known.look()
    assert [status(token) for token in ("ada", "bob", "own", "eve")] == [401, 200, 200, 200]
    assert status("bob", "/v1/audit") == 404, (
        "its rights changed: it may read the log, of which there is none"
    )
    assert "tokens" not in client.get("/healthz").json()
    file.write_text("ada: {")
    look(known)
    assert [status(token) for token in ("ada", "bob", "own", "eve")] == [401, 200, 200, 200]
    assert client.get("/healthz").json()["tokens"] == UNUSABLE
    file.write_text("")
    look(known)
    assert [status(token) for token in ("bob", "own", "eve")] == [401, 200, 401]
    assert "tokens" not in client.get("/healthz").json()


def test_a_file_without_a_token_keeps_a_service_closed(file: Path) -> None:
    settings = ServeSettings(workspace="w")
    known = KnownTokens(sources(file))
    file.write_text("{}")
    look(known)
    assert known.wanted
    assert not known.problem
    with pytest.raises(ProblemError, match="send `Authorization"):
        Access(settings, tokens=known).caller(b"Bearer ada")


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        (lambda file: file.write_text("ada: {rights: read"), "not YAML"),
        (lambda file: file.write_text("ada: very-secret"), "not the token itself"),
        (lambda file: file.write_text("- ada"), "holds no token"),
        (lambda file: file.write_text(f"own: {'b' * 64}"), "another token is called 'own'"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8"),
        (Path.unlink, "No such file"),
    ],
)
def test_a_broken_file_changes_nothing_and_is_told(
    file: Path,
    breaks: Callable[[Path], object],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    metrics = Metrics()
    known = KnownTokens(sources(file, tokens={"own": "a" * 64}), metrics)
    assert f"{GAUGE} 0.0" in metrics.render().decode()
    before = known.grants
    breaks(file)
    with caplog.at_level(logging.INFO, "seedset.serve"):
        for _ in range(3):
            look(known)
        assert known.grants == before
        assert told in known.problem
        assert str(file) in known.problem
        reasons = [record.__dict__["reason"] for record in caplog.records]
        assert reasons == [known.problem], "once"
        assert "very-secret" not in known.problem
        assert f"{GAUGE} 1.0" in metrics.render().decode()
        caplog.clear()
        file.write_text(line("eve"))
        look(known)
        assert set(known.grants) == {"own", "eve"}
        assert [record.message for record in caplog.records] == ["tokens can be read again", "tokens changed"]
        changed = caplog.records[-1].__dict__
        assert (changed["added"], changed["taken_back"]) == (["eve"], ["ada", "bob"])


def test_a_file_that_is_moved_away_and_back_is_in_order_again(file: Path, tmp_path: Path) -> None:
    known = KnownTokens(sources(file))
    away = file.rename(tmp_path / "away")
    look(known)
    assert known.problem
    away.rename(file)
    look(known)
    assert not known.problem
    assert set(known.grants) == {"ada", "bob"}


def test_a_new_file_in_the_place_of_the_old_one_is_seen(file: Path, tmp_path: Path) -> None:
    """As an editor, or a mounted secret, replaces one: of the same size, and with the time of the old one."""
    known = KnownTokens(sources(file))
    other = tmp_path / "other"
    other.write_text(line("eve") + line("bob", "curate"))
    assert other.stat().st_size == file.stat().st_size
    other.replace(file)
    look(known)
    assert set(known.grants) == {"eve", "bob"}


def test_a_replica_reads_the_file_as_it_is_when_it_begins(file: Path) -> None:
    found = sources(file)
    file.write_text(line("bob"))
    assert set(KnownTokens(found).grants) == {"bob"}, "ada was taken back since the service was built"
    file.write_text("broken: {")
    begun = KnownTokens(found)
    assert not begun.grants, "who was taken back is not known, so nobody of the file is let in"
    assert begun.wanted
    assert begun.problem
    file.unlink()
    begun = KnownTokens(found)
    assert set(begun.grants) == {"ada", "bob"}, "a machine without the file: as when the service was built"
    assert begun.problem
    file.write_text(line("eve"))
    look(begun)
    assert set(begun.grants) == {"eve"}


def test_it_is_looked_at_again_and_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LOOK_S", 0.001)
    known = KnownTokens(sources(file))

    async def changed() -> None:
        watching = asyncio.create_task(known.watch())
        file.write_text(line("eve"))
        async with asyncio.timeout(5):
            while set(known.grants) != {"eve"}:
                await asyncio.sleep(0.001)
        watching.cancel()

    asyncio.run(changed())


def test_without_a_file_nothing_is_looked_at() -> None:
    known = KnownTokens(TokenSources.of(ServeSettings(workspace="w"), {}))
    asyncio.run(known.watch())
    known.look()
    assert not known.wanted


def test_a_path_is_meant_from_where_the_service_was_built(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = sources(Path(file.name))
    monkeypatch.chdir("/")
    assert not KnownTokens(found).problem


def test_the_file_must_be_whole_when_the_service_is_built(file: Path) -> None:
    file.write_text("{}")
    with pytest.raises(UserError, match="holds no token"):
        sources(file)
