"""Commands that write into a workspace hold it: which ones, how, and what is said to the one that may not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cluster.lock
from cluster.seedset import entries
from engine.errors import StorageError
from engine.storage.lock import hold
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import evaluate, import_corpus, preprocess
from tests.support.commands import run_command
from tests.support.corpora import ultrawiki

TOGETHER = {
    *("ablate", "build-index", "calibrate", "image-features", "mine-contrast", "preprocess"),
    *("pretrain-lm", "train-encoder", "train-typing"),
}
ALONE = {"clean", "import", "refresh"}


def test_each_command_that_writes_holds_the_workspace_under_its_own_name() -> None:
    found = {name: entry.load().writes for name, entry in entries()}
    writes = {name: one for name, one in found.items() if one is not None}
    assert {name: one.command for name, one in writes.items()} == {name: name for name in writes}
    assert {name for name, one in writes.items() if not one.exclusive} == TOGETHER
    assert {name for name, one in writes.items() if one.exclusive} == ALONE


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return ultrawiki(tmp_path / "raw", {"iron": ["Iron.", "Of iron."]})


def test_an_import_beside_another_command_is_one_line(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    words = ("--workspace", tmp_path / "w", "--source", source)
    with hold(workspace.locks, "train-encoder"):
        assert run_command(import_corpus.main, *words) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"error: {tmp_path}/w: `seedset train-encoder` of ")
        assert "`seedset import` lets no other one write meanwhile; wait for its end (--wait MINUTES)" in line
        assert not workspace.corpus.exists()
    assert run_command(import_corpus.main, *words) == 0
    assert workspace.corpus.exists()
    assert not workspace.locks.exists()


def test_an_import_that_lost_its_lock_publishes_nothing(
    tmp_path: Path, source: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = Workspace.open(tmp_path / "w")
    read = import_corpus.import_corpus

    def suspended(*given: object) -> object:
        (file,) = workspace.locks.files()
        file.delete()
        return read(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(import_corpus, "import_corpus", suspended)
    assert run_command(import_corpus.main, "--workspace", tmp_path / "w", "--source", source) == 2
    assert "nothing was published" in capfd.readouterr().err
    assert not workspace.corpus.exists()


def test_a_workspace_without_a_corpus_stays_as_it_is(
    tmp_path: Path, s3: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for place in (tmp_path / "none" / "w", tmp_path / "empty", tmp_path / "file", f"{s3}/w"):
        assert run_command(preprocess.main, "--workspace", place) == 2
        (line,) = capfd.readouterr().err.splitlines()
        assert line.startswith(f"error: {place}/corpus: no corpus here yet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file"]
    assert not list((tmp_path / "empty").iterdir())
    assert Store.open(s3).files() == []
    assert not Store.open(f"{s3}/w").exists()


def test_a_command_that_another_one_runs_holds_the_workspace_too(tmp_path: Path) -> None:
    with (
        hold(Workspace.open(tmp_path).locks, "clean", exclusive=True),
        pytest.raises(StorageError, match="seedset clean"),
    ):
        preprocess.main(preprocess.main.parse(["--workspace", tmp_path]))


def test_how_long_to_wait_is_said_in_minutes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    @contextmanager
    def held(locks: Store, command: str, exclusive: bool, wait_s: float) -> Iterator[None]:
        waits.append(wait_s)
        yield

    monkeypatch.setattr(cluster.lock, "hold", held)
    for words in ((), ("--wait", "1.5")):
        assert run_command(preprocess.main, "--workspace", tmp_path, *words) == 2
    assert waits == [0, 90]
    assert run_command(preprocess.main, "--workspace", tmp_path, "--wait", "-1") == 2
    assert run_command(evaluate.main, "--workspace", tmp_path, "--wait", "1") == 2
    assert waits == [0, 90]
    assert run_command(preprocess.main, "--workspace", tmp_path, "--print-config") == 0
    assert waits == [0, 90], "nothing is held to print settings"
