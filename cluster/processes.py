"""See the processes of this machine and end those that this one started (Linux: what /proc tells)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process: its id, its parent's, and what it calls itself."""

    pid: int
    parent: int
    title: str


def running(proc: Path = Path("/proc")) -> list[Process]:
    """Return the processes of this machine; none where there is no /proc."""
    found = []
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            title = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            # The name in brackets may hold spaces and brackets.
            parent = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1]
            found.append(Process(int(folder.name), int(parent), title))
    return found


def below(processes: Iterable[Process], ancestor: int) -> list[Process]:
    """Return the processes that one started, and those that they did."""
    children: dict[int, list[Process]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found, waiting = [], [ancestor]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += [process.pid for process in own]
    return found


def started_here() -> list[Process]:
    """Return all processes below this one."""
    return below(running(), os.getpid())


def kill(process: Process) -> None:
    """Kill a process without a goodbye; one that has ended is none to kill."""
    with suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGKILL)
