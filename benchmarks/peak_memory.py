"""Measure the peak of this process's memory over a block or a call, on Linux."""

from __future__ import annotations

import ctypes
import gc
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

M_MMAP_THRESHOLD = -3
"""glibc's number of the setting (malloc.h)."""
LOOK_S = 0.01
"""Seconds between two looks at the process's memory."""


def fixed_threshold() -> None:
    """Let glibc return every large block to the system when it is freed.

    By default it raises the size from which on it does so, and what is freed between blocks that stay is
    resident all the same: the peak would be that of the allocator's holes.
    """
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)


@contextmanager
def measured_peak() -> Iterator[list[int]]:
    """Yield a list that holds, after the block, the bytes by which it raised the most that was resident."""
    found: list[int] = []
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is that of now
    before = _status("VmRSS")
    yield found
    found.append(_status("VmHWM") - before)


def own_memory() -> int:
    """Return the bytes that this process has for itself: not those of files that it maps."""
    return _resident()[0]


def own_peak(work: Callable[[], object]) -> tuple[int, int, float]:
    """Return the most bytes that this process has for itself while work is done; what it maps; and seconds.

    Of files that it maps, whose pages the system drops when it needs them, it is the most that was resident.
    """
    gc.collect()
    peaks, done = [own_memory(), 0], threading.Event()

    def look() -> None:
        while not done.wait(LOOK_S):
            peaks[:] = map(max, peaks, _resident())

    looking, started = threading.Thread(target=look), time.perf_counter()
    looking.start()
    try:
        work()
    finally:
        done.set()
        looking.join()
    return peaks[0], peaks[1], time.perf_counter() - started


def _resident() -> tuple[int, int]:
    """Return the bytes that this process has for itself, and those of files that it maps."""
    return _status("RssAnon") + _status("RssShmem"), _status("RssFile")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
