"""Measure the peak of this process's memory over a block, on Linux."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

M_MMAP_THRESHOLD = -3
"""glibc's number of the setting (malloc.h)."""


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


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
