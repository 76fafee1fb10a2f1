"""Say how much memory this process may use."""

from __future__ import annotations

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup/memory.max")
"""The limit of this process' container (cgroup version 2); elsewhere there is no such file."""


def memory_limit(cgroup: Path = CGROUP) -> int:
    """Return the bytes of memory that this process may use: the machine's, or its container's limit."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = cgroup.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return physical
    return min(physical, int(limit)) if limit.isdecimal() else physical
