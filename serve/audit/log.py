"""Append audit entries to a file of limited size, and read them back, newest first.

A batch is one write, then ``fdatasync``. What cannot be written, since the disk is full or broken, is cut off
again, so that the file holds whole lines alone; it is counted, and the first line that can be written says
how many are lost. The file belongs on a local disk.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from engine.errors import StorageError
from serve.audit.entries import Json, Wanted, line_of, now
from serve.telemetry.logs import log_event

WARN_S = 60.0
"""Seconds between two warnings of entries that cannot be written."""

BLOCK = 1 << 20
"""Bytes that are read at once, from the end on."""

LATE = timedelta(seconds=60)
"""How long an entry may stand behind a newer one: replicas send theirs in turn."""


class AuditFile:
    """The audit log of a service; may be used from several threads, and is written by one process.

    Args:
        path: of the file, made if it is not there, for its owner alone to read. Full ones are ``PATH.1``
            (the newest) and so on.
        max_bytes: of a file; a single batch may be longer.
        files: full ones that are kept.
        clock: returns the time of an entry that this makes itself.

    Raises:
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path, max_bytes: int, files: int, clock: Callable[[], str] = now) -> None:
        self._path, self._max_bytes, self._files, self._clock = path, max_bytes, files, clock
        self._lock = threading.Lock()
        self._fd: int | None = None
        self._lost, self._since, self._warned = 0, "", -WARN_S
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise StorageError(f"{path}: the audit log cannot be opened ({error}); see --audit") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._close()

    def append(self, lines: Sequence[bytes], dropped: int = 0) -> int:
        """Write lines, each with its line break; return how many entries are lost up to now.

        Args:
            lines: of entries.
            dropped: entries that were lost on their way here.
        """
        with self._lock:
            self._miss(dropped, "more came than could be sent")
            told = [self._told_of_loss()] if self._lost else []
            written = b"".join([*told, *lines])
            if not written:
                return self._lost
            try:
                self._write(written)
                self._lost = 0
            except OSError as error:
                self._miss(len(lines), str(error))
            return self._lost

    def _miss(self, count: int, reason: str) -> None:
        """Count entries that are lost."""
        if not count:
            return
        self._since = self._since if self._lost else self._clock()
        self._lost += count
        if time.monotonic() - self._warned >= WARN_S:
            self._warned = time.monotonic()
            log_event("audit entries lost", level=logging.ERROR, count=self._lost, reason=reason)

    def _told_of_loss(self) -> bytes:
        entry = {"time": self._clock(), "event": "lost", "count": self._lost, "since": self._since}
        return line_of(entry)

    def _write(self, data: bytes) -> None:
        """Write all of it, or nothing (OSError)."""
        fd, size = self._ready(len(data))
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(fd, left) :]
            os.fdatasync(fd)
        except OSError:
            os.ftruncate(fd, size)  # of what fitted the last line may be a part
            raise

    def _ready(self, more: int) -> tuple[int, int]:
        """Return the open file and its size, once it has room; one that was moved away is made anew."""
        if self._fd is None or not self._is_in_place(self._fd):
            self._close()
            self._open()
        assert self._fd is not None
        size = os.fstat(self._fd).st_size
        if size and size + more > self._max_bytes:
            self._close()
            for number in range(self._files, 0, -1):
                older = self._numbered(number - 1)
                if older.exists():
                    older.replace(self._numbered(number))
            if not self._files:
                self._path.unlink()
            self._open()
            size = 0
        return self._fd, size

    def _is_in_place(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(fd))
        except FileNotFoundError:
            return False

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.write(self._fd, b"\n")  # the machine went down within a line: what follows is whole

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
        self._fd = None

    def _numbered(self, number: int) -> Path:
        return Path(f"{self._path}.{number}") if number else self._path


def read_entries(path: Path, wanted: Wanted) -> Json:
    """Return entries of an audit log, newest first, with its full files.

    ``more`` says whether there are others; ``broken`` counts lines that were passed and are no entries.

    Raises:
        StorageError: there is no such file, or it cannot be read.
    """
    wanted = wanted.as_given()
    marks, found, broken = wanted.marks(), list[Json](), 0
    for line in _lines(path):
        if not all(mark in line for mark in marks):
            continue
        try:
            entry = json.loads(line)
            at = entry["time"]
        except (ValueError, KeyError, TypeError):
            broken += bool(line.strip())
            continue
        if _is_long_before(at, wanted):
            break
        if wanted.fits(entry):
            found.append(entry)
        if len(found) > wanted.offset + wanted.limit:
            break
    end = wanted.offset + wanted.limit
    return {"entries": found[wanted.offset : end], "more": len(found) > end, "broken": broken}


def _is_long_before(at: str, wanted: Wanted) -> bool:
    try:
        return wanted.since is not None and datetime.fromisoformat(at) < wanted.since - LATE
    except (ValueError, TypeError, OverflowError):  # no time, or in the first minute of the calendar
        return False


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a log, the last first, then those of its full files."""
    number = 0
    while True:
        part = Path(f"{path}.{number}") if number else path
        try:
            with part.open("rb") as file:
                yield from _backwards(file.fileno())
        except FileNotFoundError:
            if number:
                return
            raise StorageError(f"{path}: there is no such audit log") from None
        except OSError as error:
            raise StorageError(f"{part}: cannot be read ({error.strerror})") from None
        number += 1


def _backwards(fd: int) -> Iterator[bytes]:
    end, rest = os.fstat(fd).st_size, b""
    while end:
        start = max(0, end - BLOCK)
        first, *lines = (os.pread(fd, end - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        end, rest = start, first
    yield rest
