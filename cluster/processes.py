"""See the processes of this machine and end those that this one started (Linux: what /proc tells)."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import UserError

LOOK_S = 0.2
"""Seconds between two looks at what a command has written."""

SHOWN = 2000
"""Characters of a command's output that errors and logs hold: its end."""


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


def stop(process: subprocess.Popen[Any], seconds: float) -> None:
    """Tell a command to end and wait for it; kill it if it has not ended by then.

    Args:
        process: that was started here; one that has ended is none to end.
        seconds: that it may take.
    """
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_for_words(process: subprocess.Popen[Any], words: str, output: Path, seconds: float) -> None:
    """Wait until a command has written words, such as those that it writes once it is ready.

    Args:
        process: that was started here.
        words: waited for.
        output: file that it writes to.
        seconds: that it may take.

    Raises:
        UserError: it has ended before, or the time is over; with the end of what it wrote.
    """
    latest = time.monotonic() + seconds
    while words not in (written := output.read_text(encoding="utf-8", errors="replace")):
        status = process.poll()
        if status is not None or time.monotonic() > latest:
            how = f"within {seconds:.3g} s" if status is None else f"before it ended with status {status}"
            raise UserError(f"the command did not write {words!r} {how}: {written[-SHOWN:]}")
        time.sleep(LOOK_S)
