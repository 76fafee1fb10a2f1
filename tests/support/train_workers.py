"""Take a training worker away in the middle of a run."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil

CHECKPOINTS = 4
"""A worker may be two reports ahead of Ray Train; after four checkpoints, Ray Train knows of one."""


def wait_for_checkpoints(runs: Path, before: set[Path], seconds: float = 120) -> bool:
    """Wait until a run below ``runs`` can be resumed; old checkpoints are removed meanwhile."""
    seen: set[Path] = set()
    end = time.monotonic() + seconds
    while len(seen) < CHECKPOINTS and time.monotonic() < end:
        time.sleep(0.02)
        seen |= set(runs.glob("*/checkpoint_*")) - before
    return len(seen) >= CHECKPOINTS


def kill_a_worker(runs: Path) -> list[int]:
    """Start a thread that sends SIGKILL to a worker of this process' own cluster, once it can be resumed.

    Returns:
        Receives the process' id when that is done.
    """
    killed: list[int] = []

    def kill() -> None:
        for child in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(child.cmdline()):
                os.kill(child.pid, signal.SIGKILL)
                killed.append(child.pid)
                return

    _once_resumable(runs, kill)
    return killed


def press_ctrl_c(runs: Path) -> None:
    """Start a thread that interrupts this process as a terminal does, once a run can be resumed."""
    _once_resumable(runs, lambda: os.kill(os.getpid(), signal.SIGINT))


def _once_resumable(runs: Path, act: Callable[[], None]) -> None:
    before = set(runs.glob("*/checkpoint_*"))

    def wait_and_act() -> None:
        if wait_for_checkpoints(runs, before):
            act()

    threading.Thread(target=wait_and_act, daemon=True).start()
