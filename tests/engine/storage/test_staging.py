"""Of work that fails no staged folder is left, whether it was to go to a disk or to a bucket."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs as pafs
import pytest

from engine.storage.staging import staged_removed
from engine.storage.store import Store
from jobs import import_corpus
from tests.support.commands import run_command


@pytest.fixture(params=["disk", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(pafs.LocalFileSystem(), str(tmp_path / "w" / "bundle"), request.param == "disk")


def fail_after_staging(store: Store, made: list[Path]) -> None:
    made.append(store.staging())
    (made[0] / "half").mkdir()
    raise KeyError


def test_what_was_staged_goes_with_the_block_that_failed(store: Store) -> None:
    with staged_removed():
        outer = store.staging()
        inner: list[Path] = []
        with pytest.raises(KeyError), staged_removed():
            fail_after_staging(store, inner)
        assert not inner[0].exists()
        assert outer.is_dir(), "it is of the block around it"
    assert not outer.exists()


def test_what_was_published_stays(tmp_path: Path) -> None:
    target = Store.open(tmp_path / "published")
    with staged_removed():
        staged = target.staging()
        (staged / "file").write_text("whole")
        target.publish_folder(staged, last="file")
    assert [path.name for path in tmp_path.iterdir()] == ["published"]
    assert (target / "file").read_bytes() == b"whole"


def test_a_command_that_fails_leaves_nothing_beside_its_workspace(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "entities.jsonl").write_text("")
    words = ("--format", "jsonl", "--source", tmp_path / "raw", "--workspace", tmp_path / "w")
    assert run_command(import_corpus.main, *words) == 2
    assert not (tmp_path / "w").exists() or list((tmp_path / "w").iterdir()) == []
