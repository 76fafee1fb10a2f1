"""Remove staged folders that were not published: work that fails leaves none behind.

A folder that is published is renamed, or removed after its upload. What remains is removed when the block in
which it was made ends, or with the process.
"""

from __future__ import annotations

import atexit
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_made: list[set[Path]] = [set()]
"""Folders of each block that is open, the innermost last; the first are those made outside of any."""


def note_staged(folder: Path) -> Path:
    """Return a folder that was made for a publication, after it was noted."""
    _made[-1].add(folder)
    return folder


@contextmanager
def staged_removed() -> Iterator[None]:
    """Remove, when the block ends, what was staged in it and is still there."""
    own: set[Path] = set()
    _made.append(own)
    try:
        yield
    finally:
        # By identity: an empty set equals another one.
        _made[:] = [one for one in _made if one is not own]
        _remove(own)


def _remove(folders: set[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _at_exit(process: int) -> None:
    if os.getpid() == process:  # not a fork of it, whose folders these are not
        for folders in _made:
            _remove(folders)


atexit.register(_at_exit, os.getpid())
