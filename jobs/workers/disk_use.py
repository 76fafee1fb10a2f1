"""Say what a job will write before it begins, and refuse what the disk has no room for."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from rich.filesize import decimal

from engine.errors import StorageError
from engine.storage.object_copies import found_copy
from engine.storage.store import Store, machine_cache
from jobs import console

WORTH_SAYING = 100_000_000
"""Bytes below which nothing is said."""


def check_copies(files: Iterable[Store], say: bool) -> None:
    """Do what :func:`check_room` does for files of a bucket of which this machine has no copies yet."""
    cache = machine_cache()
    wanted = (one for one in files if not one.is_local and found_copy(one.path, cache) is None)
    check_room(sum(one.size() for one in wanted), say)


def check_room(size: int, say: bool) -> None:
    """Do what :func:`check_disk` does for this machine's cache, if something is to be copied to it.

    Args:
        size: bytes.
        say: say it, as the first of several workers does.
    """
    if size:
        check_disk(Store.open(machine_cache()), size, say)


def check_disk(folder: Store, size: int, say: bool = True) -> None:
    """Say how much will be written into a folder, and that there is room for it.

    Args:
        folder: of a disk or a bucket. A bucket has no end that it tells.
        size: bytes, about.
        say: say it.

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
    if say and size >= WORTH_SAYING:
        console.say(told if free is None else f"{told}; {decimal(free)} are free")


def _free_bytes(folder: Store) -> int | None:
    """Return the bytes that are free where a folder is or will be; None: a bucket."""
    if not folder.is_local:
        return None
    there = Path(folder.path).absolute()
    while not there.exists():
        there = there.parent
    return shutil.disk_usage(there).free
