"""Remove staged folders that were not published: work that fails leaves none behind.

A folder that is published is renamed, or removed after its upload. What remains is removed when the block in
which it was made ends, or with the process, also where that is told to end (SIGTERM, which ``ray job stop``
sends).
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import threading
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
    """Remove, when the block ends, what was staged in it and is still there; SIGTERM ends it, too.

    So do other blocks that are open: temporary folders go, locks are given back.
    """
    own: set[Path] = set()
    _made.append(own)
    try:
        with _ended_by_sigterm():
            yield
    finally:
        # By identity: an empty set equals another one.
        _made[:] = [one for one in _made if one is not own]
        _remove(own)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as an exit does, unless something else listens for it."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _remove(folders: set[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _at_exit(process: int) -> None:
    if os.getpid() == process:  # not a fork of it, whose folders these are not
        for folders in _made:
            _remove(folders)


atexit.register(_at_exit, os.getpid())
