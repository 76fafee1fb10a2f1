"""Name, write and clean up files on this machine's file systems.

A temporary file or folder lies beside what it becomes and tells in its name which process is writing it::

    .<target>.<machine>-<pid>-<random>

``machine`` is a digest of the running kernel and of the namespace that process ids count in. What a process
left that lives no more is removed when another one first writes into the same folder.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import os
import re
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

from engine.errors import StorageError
from engine.external_errors import translated

MAX_NAME_BYTES = 255
"""Bytes of a name that file systems take."""

STRANGERS_AGE_S = 7 * 24 * 3600.0
"""Seconds without a change after which what a process of another machine began counts as left behind."""

ASIDE = "-old-"
"""Part of the name of a folder that was moved aside for another."""

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2
"""Constants of Linux' renameat2."""

_TEMPORARY = re.compile(r"\..*\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{12}", re.DOTALL)
_BLOCK = 4 << 20
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
"""Answers of file systems that cannot reserve; EINVAL of ZFS."""


def local_path(text: str) -> str:
    """Return the absolute path of a local file or folder; ``~`` is a home folder.

    Raises:
        StorageError: no path can have this name, or it cannot be followed.
    """
    if "\0" in text:
        raise StorageError(f"{text!r}: holds a zero byte, which no path can; check the path")
    if not _is_utf8(text):
        raise StorageError(f"{text!a}: the path is not UTF-8; rename what is not")
    with translated(text):
        try:
            found = str(Path(text).expanduser().resolve())
        except RuntimeError as error:  # of a home folder that nobody has, or of links in a circle
            way_out = "write ./~… for a folder of this name" if text.startswith("~") else "check the path"
            raise StorageError(f"{text}: {str(error).rstrip('.')}; {way_out}") from None
    if not _is_utf8(found):
        raise StorageError(f"{text}: leads to {found!a}, which is not UTF-8; rename what is not")
    return found


def short_name(name: str, room: int = MAX_NAME_BYTES) -> str:
    """Return a file name that fits: one of more bytes keeps its begin and its suffix, with a digest between.

    Args:
        name: without slashes.
        room: bytes.
    """
    if len(name.encode("utf-8", "surrogateescape")) <= room:
        return name
    suffix = Path(name).suffix if len(Path(name).suffix.encode("utf-8", "replace")) <= room // 4 else ""
    content = name.encode("utf-8", "surrogateescape")
    tail = f"-{hashlib.sha256(content).hexdigest()[:12]}{suffix}"
    return content[: room - len(tail.encode())].decode("utf-8", "ignore") + tail


def temporary_beside(target: Path) -> Path:
    """Return a new path beside ``target`` for this process to write.

    The folder is made if it is not there, and what dead processes left in it is removed.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _clean_once(str(target.parent), os.getpid())
    own = f".{machine_id()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"
    return target.with_name(f".{short_name(target.name, MAX_NAME_BYTES - 1 - len(own))}{own}")


def new_folder(beside: Path | None = None) -> Path:
    """Return a new empty folder for a publication, beside its target or in the machine's temporary folder."""
    folder = temporary_beside(beside or Path(tempfile.gettempdir()) / "seedset-staging")
    folder.mkdir()
    return folder


def readable_names(folder: str, suffix: str | tuple[str, ...]) -> list[str]:
    """Return the paths of the files below a folder that end in a suffix, where some name is not UTF-8.

    Raises:
        StorageError: such a name ends in the suffix; others are nobody's concern.
    """
    found = []
    for parent, _, names in os.walk(folder, followlinks=True):
        for path in (os.path.join(parent, name) for name in names if name.endswith(suffix)):
            if not path.isascii() and not _is_utf8(path):
                if suffix:
                    raise StorageError(f"{path!a}: the path is not UTF-8; rename what is not")
            elif os.path.isfile(path):
                found.append(path)
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@contextmanager
def in_one_step(target: Path) -> Iterator[Path]:
    """Yield a path beside ``target`` to write; on a clean exit it becomes ``target``, with the usual mode.

    Raises:
        StorageError: the file system does not take it; names ``target``.
    """
    with translated(str(target)):
        temporary = temporary_beside(target)
    with translated(str(target), hidden=(str(temporary),), system_only=True):
        try:
            yield temporary
            give_usual_mode(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other programs that lock this file or folder out of the block, where the disk knows locks."""
    held = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def swap_in(folder: Path, target: Path) -> None:
    """Exchange ``folder`` and ``target`` in one step, then remove what stood there.

    Where the disk knows no exchange, the old folder is moved aside first; if the program ends between the
    two steps, it is found there, as ``.<target>-old-…``.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for path in (folder, *folder.rglob("*")):
        give_usual_mode(path)
    if target.exists() and _exchanged(folder, target):
        shutil.rmtree(folder, ignore_errors=True)
        return
    if target.exists():
        os.rename(target, target.with_name(f".{target.name}{ASIDE}{uuid.uuid4().hex}"))
    os.rename(folder, target)
    for aside in target.parent.glob(f".{glob.escape(target.name)}{ASIDE}*"):
        shutil.rmtree(aside, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two paths of one disk in one step; False where the system or the disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return int(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)) == 0


def give_usual_mode(path: Path) -> None:
    """Give a file or folder the mode that the umask says: some libraries let none but the owner read.

    What belongs to another account is left: a link to a published file has its mode already.
    """
    usual = (0o777 if path.is_dir() else 0o666) & ~_umask()
    with suppress(PermissionError):
        if stat.S_IMODE(path.stat().st_mode) & usual != usual:
            path.chmod(usual)


def reserve(file: IO[bytes], size: int) -> None:
    """Let a file have ``size`` bytes that are there: to write into a map of others kills the process.

    Raises:
        OSError: the disk has no room for them.
    """
    file.flush()
    try:
        if size:
            os.posix_fallocate(file.fileno(), 0, size)
        return
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    place = os.fstat(file.fileno()).st_size
    zeros = bytes(_BLOCK)
    while place < size:
        place += os.pwrite(file.fileno(), zeros[: size - place], place)
    os.fsync(file.fileno())


def clean(folder: Path) -> None:
    """Remove the temporaries that dead processes left in a folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not is_left_behind(Path(entry.path)):
                continue
            with suppress(OSError):
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a temporary file or folder."""
    return _TEMPORARY.fullmatch(name) is not None


def is_left_behind(path: Path) -> bool:
    """Return whether a path is a temporary file or folder of a process that lives no more."""
    found = _TEMPORARY.fullmatch(path.name)
    return found is not None and _is_left(path, found["machine"], int(found["pid"]))


@cache
def _clean_once(folder: str, process: int) -> None:
    """Clean a folder at the first write of a process (a fork is one of its own)."""
    clean(Path(folder))


def _is_left(path: Path, machine: str, pid: int) -> bool:
    if machine == machine_id():
        return not Path(f"/proc/{pid}").exists()
    newest = max((one.lstat().st_mtime for one in (path, *path.rglob("*"))), default=0.0)
    return time.time() - newest > STRANGERS_AGE_S


@cache
def machine_id() -> str:
    """Return 8 hex digits for the running kernel and the namespace that process ids count in."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return hashlib.sha256(boot + os.readlink("/proc/self/ns/pid").encode()).hexdigest()[:8]


def _umask() -> int:
    """Return the process' umask without changing it: other threads make files."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("Umask:"):
            return int(line.partition(":")[2], 8)
    return 0o022
