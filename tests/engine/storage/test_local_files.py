"""Test files on the local disk: modes, temporaries of dead processes, reserved space, names, listings."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.numpy import save_file

import engine.storage.local_files as files
from engine.errors import StorageError
from engine.storage.store import Store


@pytest.fixture(params=[0o022, 0o002, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_everything_published_obeys_the_umask(tmp_path: Path, umask: int) -> None:
    target = Store.open(tmp_path / "out")
    staged = target.staging()
    (staged / "inner").mkdir(mode=0o700)
    save_file({}, staged / "inner" / "model.safetensors")
    (staged / "model.safetensors").touch(mode=0o600)
    target.publish_folder(staged, last="model.safetensors")
    found = sorted(path for path in tmp_path.rglob("*"))
    assert len(found) == 4
    for path in found:
        assert mode(path) == (0o777 if path.is_dir() else 0o666) & ~umask, path


def test_a_file_that_a_library_made_for_its_owner_obeys_the_umask(tmp_path: Path, umask: int) -> None:
    with Store.open(tmp_path / "a.safetensors").writing() as path:
        save_file({}, path)
    assert mode(tmp_path / "a.safetensors") == 0o666 & ~umask


def ended_process() -> int:
    """The id of a process that is over."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    return child


def named(folder: Path, pid: int, machine: str | None = None) -> Path:
    return folder / f".part.{machine or files.machine_id()}-{pid}-0123456789ab"


def test_only_what_no_living_process_owns_is_removed(tmp_path: Path) -> None:
    dead, other = named(tmp_path, ended_process()), named(tmp_path, 1, "0" * 8)
    old = named(tmp_path, 2, "0" * 8)
    mine, hidden = named(tmp_path, os.getpid()), tmp_path / ".part.of-another-program"
    for folder in (dead, other, old, mine):
        folder.mkdir()
        (folder / "file").touch()
    hidden.touch()
    week_ago = old.stat().st_mtime - files.STRANGERS_AGE_S - 60
    for path in (old / "file", old):
        os.utime(path, (week_ago, week_ago))
    (Store.open(tmp_path) / "part").write_bytes(b"")
    assert set(tmp_path.iterdir()) == {other, mine, hidden, tmp_path / "part"}


def test_a_killed_writer_leaves_a_temporary_that_the_next_one_removes(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with files.in_one_step(tmp_path / "part") as path:
            path.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".part.")
    files.clean(tmp_path)
    assert not list(tmp_path.iterdir())


def test_space_is_reserved_and_a_file_that_does_not_fit_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.write(b"head")
        files.reserve(file, 10_000)
    there = (tmp_path / "a").stat()
    assert there.st_size == 10_000
    assert there.st_blocks * 512 >= 10_000, "no hole"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        for supported in (True, False):
            if not supported:

                def cannot(*_: object) -> None:
                    raise OSError(95, "Operation not supported")

                monkeypatch.setattr(os, "posix_fallocate", cannot)
            with (
                pytest.raises(StorageError, match=r"big: File too large; raise the limit"),
                files.in_one_step(tmp_path / "big") as path,
                path.open("wb") as file,
            ):
                files.reserve(file, 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert [path.name for path in tmp_path.iterdir()] == ["a"], "no temporary is left"


def test_where_a_disk_cannot_reserve_zeros_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", cannot)
    with (tmp_path / "a").open("wb") as file:
        file.write(b"head")
        files.reserve(file, 5_000_000)
    assert (tmp_path / "a").read_bytes() == b"head" + bytes(5_000_000 - 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("~nobody-of-this-name/w", "home directory; write ./~"),
        ("a\0b", "zero byte"),
        ("caf\udce9/w", "not UTF-8; rename"),
    ],
)
def test_a_path_that_is_none_is_refused(text: str, said: str) -> None:
    with pytest.raises(StorageError, match=said):
        Store.open(text)


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match=r"a: .*; "):
        (Store.open(tmp_path / "a") / "file").read_bytes()


def test_names_that_are_not_utf8_matter_only_where_they_are_asked_for(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / f"{odd}.jpg").touch()
    (tmp_path / "a.jsonl").touch()
    assert [file.name for file in Store.open(tmp_path).files(".jsonl")] == ["a.jsonl"]
    assert [file.name for file in Store.open(tmp_path).files((".jsonl", ".x"))] == ["a.jsonl"]
    (tmp_path / odd).mkdir()
    (tmp_path / odd / "b.jsonl").touch()
    with pytest.raises(StorageError, match=r"caf\\udce9/b.jsonl': the path is not UTF-8; rename"):
        Store.open(tmp_path).files(".jsonl")


@pytest.mark.parametrize("name", ["a" * 300 + ".jsonl", "é" * 200 + ".jsonl", "." + "b" * 400, "日" * 300])
def test_a_long_name_is_cut_to_what_a_disk_takes(name: str, tmp_path: Path) -> None:
    short = files.short_name(name)
    (tmp_path / short).touch()
    assert short != files.short_name(f"x{name}"), "and stays another one's"
    assert short.endswith(".jsonl") or not name.endswith(".jsonl")
    assert files.short_name("short.jsonl") == "short.jsonl"


@pytest.mark.parametrize("length", [250, 255])
def test_a_target_of_a_long_name_can_be_written(length: int, tmp_path: Path) -> None:
    file = Store.open(tmp_path) / ("a" * length)
    file.write_bytes(b"x")
    assert file.read_bytes() == b"x"
    with pytest.raises(StorageError, match="255 bytes; shorten it"):
        (Store.open(tmp_path) / ("a" * 256)).write_bytes(b"x")


@pytest.mark.parametrize("method", ["read_bytes", "size", "files", "staging", "delete"])
def test_what_may_not_be_done_is_named_with_the_place(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    class Denied:
        open_input_file = get_file_info = denied

    monkeypatch.setattr(Path, "mkdir", denied)
    store = Store(Denied(), str(tmp_path / "w"), True)
    with pytest.raises(StorageError, match=r"/w: .*Permission denied; give this account the right"):
        getattr(store, method)()
