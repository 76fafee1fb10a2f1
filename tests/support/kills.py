"""End a process' work in the middle, as far as its files are concerned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.storage import s3, store


class Killed(BaseException):
    """The end of the process, which no handler of ours sees to."""


def kill_at_local_write(patch: pytest.MonkeyPatch, after: int) -> None:
    """Have the write after so many files and folders end with :class:`Killed` before it is there."""
    in_one_step, swap_in, left = store.in_one_step, store.swap_in, after

    def count() -> None:
        nonlocal left
        if not left:
            raise Killed
        left -= 1

    @contextmanager
    def killed_file(target: Path) -> Iterator[Path]:
        with in_one_step(target) as temporary:
            yield temporary
            count()

    def killed_folder(folder: Path, target: Path) -> None:
        count()
        swap_in(folder, target)

    patch.setattr(store, "in_one_step", killed_file)
    patch.setattr(store, "swap_in", killed_folder)


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
