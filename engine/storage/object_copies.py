"""Copy objects of a bucket into a machine's cache, and know of which state of the object each copy is."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.storage import s3
from engine.storage.local_files import in_one_step, locked

NOTES = ".made-of"
"""Folder of a cache that says what its copies were made of."""
_LOCKS = 256
"""Files that stand for all copies, so that there are never more."""


def known_copy(path: str, state: s3.Version, cache: Path) -> Path | None:
    """Return the copy of an object in this state that is in the cache; None if there is none."""
    target = cache / path
    try:
        there = target.stat()
        noted = json.loads(_note(path, cache).read_bytes())
    except (OSError, ValueError):
        return None  # not there, or not whole
    same = noted == [state.etag, state.size, there.st_mtime_ns] and there.st_size == state.size
    return target if same else None


def _note(path: str, cache: Path) -> Path:
    return cache / NOTES / f"{path}.json"


def found_copy(path: str, cache: Path) -> Path | None:
    """Return the copy of an object as it is now that is in the cache; None if there is none."""
    state = s3.version(path)
    return None if state is None else known_copy(path, state, cache)


def copied(path: str, state: s3.Version, cache: Path) -> Path | None:
    """Return a copy of an object in this state, made unless it is there; None if the object has changed.

    Beside the copies lies a note of what each was made of: which state, and the copy's own time of change,
    as another process may have put a copy of another state in its place. Of the processes of a machine that
    want the same copy one makes it, and the others wait for it.
    """
    if there := known_copy(path, state, cache):
        return there
    with _copying(path, cache):
        return known_copy(path, state, cache) or _made(path, state, cache)


def _made(path: str, state: s3.Version, cache: Path) -> Path | None:
    target = cache / path
    try:
        with in_one_step(target) as temporary:
            with temporary.open("wb") as sink:
                s3.download(path, state, sink)
            changed = temporary.stat().st_mtime_ns
    except s3.ChangedError:
        return None
    with in_one_step(_note(path, cache)) as temporary:
        temporary.write_text(json.dumps([state.etag, state.size, changed]))
    return target


@contextmanager
def _copying(path: str, cache: Path) -> Iterator[None]:
    """Keep other processes of this machine from making the same copy; a few others wait, too."""
    lock = cache / NOTES / ".locks" / f"{zlib.crc32(path.encode()) % _LOCKS}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    with locked(lock):
        yield
