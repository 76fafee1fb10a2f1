"""Measure the peak of every process of a command, by its role, and of Ray's object store."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import psutil

LOOK_S = 0.1
"""Seconds between two looks at the processes' memory."""
COMMAND = "the command"
"""Role of the process that was started."""
STORE = "object store"
"""Role under which Ray's object store is told: memory that the processes of a node share."""
IDLE = "IDLE"
"""Role of a worker of Ray that has no work yet, as Ray calls it."""
STARTING = "default_worker.py"
"""Program of a worker of Ray that has not named itself yet."""
_KIB = 1024
_BLOCK = 512
"""Bytes of a block in what stat(2) tells."""


class Cost(NamedTuple):
    """What a command took.

    Args:
        peaks: bytes of the largest process of each role; see :func:`measured`.
        disk: bytes that the folder grew by.
        seconds: of the wall clock.
    """

    peaks: dict[str, int]
    disk: int
    seconds: float

    @property
    def largest(self) -> int:
        """Bytes of the largest process; the object store is none."""
        return max(size for role, size in self.peaks.items() if role != STORE)


def measured(command: Sequence[str], folder: Path) -> Cost:
    """Run a command and return its cost.

    A process has what is its own (`RssAnon`) and what it shares (`RssShmem`: of a process of Ray, what it has
    read in the object store); files that it maps are left out, as the system drops their pages when it needs
    them. Roles are :data:`COMMAND`, the names that Ray gives its actors, and else the name of the program, of
    Python's that of its file.

    Args:
        command: with its arguments.
        folder: whose growth on disk is told.

    Raises:
        RuntimeError: it failed; with what it wrote.
    """
    before, started = bytes_below(folder), time.perf_counter()
    peaks: dict[str, int] = defaultdict(int)
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        while process.poll() is None:
            for role, size in _looked_at(process.pid):
                peaks[role] = max(peaks[role], size)
            time.sleep(LOOK_S)
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)}: ended with status {process.returncode}\n{log.read()}")
    return Cost(dict(peaks), bytes_below(folder) - before, time.perf_counter() - started)


def _looked_at(pid: int) -> Iterator[tuple[str, int]]:
    """Yield roles and bytes of a process and of all below it, as far as they still run."""
    try:
        processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return
    for one in processes:
        try:
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
            # Here, and not before: a process has its parent's name until it runs its own program.
            role = COMMAND if one.pid == pid else _role(one)
            stored = _object_store(one.pid) if role == "raylet" else 0
        except (OSError, psutil.Error):
            continue
        own = (int(line.split()[1]) * _KIB for line in lines if line.startswith(("RssAnon:", "RssShmem:")))
        yield role, sum(own)
        yield STORE, stored


def _role(process: psutil.Process) -> str:
    """Return the name of an actor or task of Ray, without its method, or that of the program."""
    words = process.cmdline()
    if words and words[0].startswith("ray::"):
        return words[0].removeprefix("ray::").split(".")[0].strip()
    programs = [Path(word).name for word in words[1:] if word.endswith(".py")]
    if programs[:1] == [STARTING]:
        return IDLE
    return programs[0] if programs else str(process.name())


def _object_store(raylet: int) -> int:
    """Return the bytes in the file that a node's object store lies in, which has no name any more."""
    total = 0
    for handle in Path(f"/proc/{raylet}/fd").iterdir():
        if "plasma" in str(handle.readlink()):
            total += handle.stat().st_blocks * _BLOCK
    return total


def bytes_below(folder: Path) -> int:
    """Return the bytes that the files of a folder take; one of several names counts once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            known = path.stat()
            sizes[known.st_ino] = known.st_size
    return sum(sizes.values())
