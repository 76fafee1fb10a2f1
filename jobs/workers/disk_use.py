"""Say what a job will write before it begins, and refuse what the disk has no room for."""

from __future__ import annotations

import shutil
from pathlib import Path

from rich.filesize import decimal

from engine.errors import StorageError
from engine.storage.store import Store
from jobs import console

WORTH_SAYING = 100_000_000
"""Bytes below which nothing is said."""


def check_disk(folder: Store, size: int) -> None:
    """Say how much will be written into a folder, and that there is room for it.

    Args:
        folder: of a disk or a bucket. A bucket has no end that it tells.
        size: bytes, about.

    Raises:
        StorageError: the disk has less free.
    """
    free = _free_bytes(folder)
    told = f"{folder.uri}: this will need about {decimal(size)} on disk"
    if free is not None and size > free:
        raise StorageError(
            f"{told}, and {decimal(free)} are free; free space (`seedset clean` removes what nothing needs), "
            "or use a --workspace on a larger disk"
        )
    if size >= WORTH_SAYING:
        console.say(told if free is None else f"{told}; {decimal(free)} are free")


def _free_bytes(folder: Store) -> int | None:
    """Return the bytes that are free where a folder is or will be; None: a bucket."""
    if not folder.is_local:
        return None
    there = Path(folder.path).absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
