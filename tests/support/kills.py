"""End a process' work in the middle, as far as its files are concerned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.storage import s3


class Killed(BaseException):
    """The end of the process, which no handler of ours sees to."""


def kill_at_upload(patch: pytest.MonkeyPatch, when: Callable[[str, int], bool]) -> None:
    """Have uploads into buckets end with :class:`Killed`.

    Args:
        patch: takes it back.
        when: whether to, given the path and the number of uploads before it.
    """
    upload, done = s3.upload, 0

    def killed(file: Path, path: str) -> None:
        nonlocal done
        if when(path, done):
            raise Killed
        done += 1
        upload(file, path)

    patch.setattr(s3, "upload", killed)
