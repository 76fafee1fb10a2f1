"""A job says what it will write before it begins, and does not begin what the disk has no room for."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from engine.errors import StorageError
from engine.storage.store import Store
from jobs.workers import disk_use
from jobs.workers.disk_use import check_copies, check_disk

GB = 10**9


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * GB, 70 * GB, 30 * GB))


@pytest.mark.usefixtures("disk")
def test_what_fits_is_said_if_it_is_much(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_disk(Store.open(tmp_path / "not/yet/there"), 26 * GB)
    told = capsys.readouterr().err
    assert "not/yet/there: this will need about 26.0 GB on disk; 30.0 GB are free" in " ".join(told.split())
    check_disk(Store.open(tmp_path), 26_000)
    assert not capsys.readouterr().err


@pytest.mark.usefixtures("disk")
def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"about 31.0 GB on disk, and 30.0 GB are free; .*--workspace"):
        check_disk(Store.open(tmp_path), 31 * GB)


@pytest.mark.usefixtures("disk")
def test_a_bucket_has_no_end(s3: str, capsys: pytest.CaptureFixture[str]) -> None:
    check_disk(Store.open(f"{s3}/w"), 31 * GB)
    assert "this will need about 31.0 GB on disk" in " ".join(capsys.readouterr().err.split())


@pytest.mark.usefixtures("disk")
def test_what_is_copied_from_a_bucket_is_told_once_and_refused_by_every_worker(
    s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEDSET_CACHE", str(tmp_path / "cache"))
    files = [Store.open(f"{s3}/{name}") for name in "ab"]
    for file in files:
        file.write_bytes(b"states")
    monkeypatch.setattr(disk_use, "WORTH_SAYING", 1)
    check_copies(files, say=False)
    check_copies([Store.open(tmp_path)], say=True)
    assert not capsys.readouterr().err
    check_copies(files, say=True)
    told = " ".join(capsys.readouterr().err.split())
    assert "cache: this will need about 12 bytes on disk" in told
    files[0].local_copy(tmp_path / "cache")
    check_copies(files, say=True)
    assert "about 6 bytes on disk" in " ".join(capsys.readouterr().err.split())
    monkeypatch.setattr(disk_use, "_free_bytes", lambda folder: 5)
    with pytest.raises(StorageError, match=r"about 6 bytes on disk, and 5 bytes are free"):
        check_copies(files, say=False)
