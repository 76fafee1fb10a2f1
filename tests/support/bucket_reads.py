"""Count what is read of a bucket's objects, by their names."""

from __future__ import annotations

from collections import Counter
from typing import BinaryIO

import pytest

from engine.storage import s3
from engine.storage.s3 import Version


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return the bytes that are read of each object from now on, whole or in ranges."""
    read: Counter[str] = Counter()
    copy, some = s3.download, s3.read_range

    def download(path: str, state: Version, sink: BinaryIO) -> None:
        copy(path, state, sink)
        read[path.rsplit("/", 1)[-1]] += state.size

    def read_range(path: str, begin: int, end: int) -> bytes | None:
        content = some(path, begin, end)
        read[path.rsplit("/", 1)[-1]] += len(content or b"")
        return content

    monkeypatch.setattr(s3, "download", download)
    monkeypatch.setattr(s3, "read_range", read_range)
    return read
