"""Copy objects of a bucket into a machine's cache, and know of which state of the object each copy is."""

from __future__ import annotations

import json
from pathlib import Path

from engine.storage import s3
from engine.storage.local_files import in_one_step

NOTES = ".made-of"
"""Folder of a cache that says what its copies were made of."""


def copied(path: str, state: s3.Version, cache: Path) -> Path | None:
    """Return a copy of an object in this state, made unless it is there; None if the object has changed.

    Beside the copies lies a note of what each was made of: which state, and the copy's own time of change,
    as another process may have put a copy of another state in its place.
    """
    target, note = cache / path, cache / NOTES / f"{path}.json"
    try:
        there = target.stat()
        if json.loads(note.read_bytes()) == [state.etag, state.size, there.st_mtime_ns] and (
            there.st_size == state.size
        ):
            return target
    except (OSError, ValueError):
        pass  # not there, or not whole: made
    try:
        with in_one_step(target) as temporary:
            with temporary.open("wb") as sink:
                s3.download(path, state, sink)
            changed = temporary.stat().st_mtime_ns
    except s3.ChangedError:
        return None
    with in_one_step(note) as temporary:
        temporary.write_text(json.dumps([state.etag, state.size, changed]))
    return target
