"""Workers for tests of executors; importable, as Ray's actors need them."""

from __future__ import annotations

import os
from pathlib import Path

from engine.errors import UserError


class Squares:
    """Returns a task's square; where ``folder`` is given it also writes which process was asked."""

    def __init__(self, folder: str = "") -> None:
        self._folder = folder

    def __call__(self, task: int) -> int:
        if self._folder:
            (Path(self._folder) / f"{task}-{os.getpid()}").touch()
        return task * task


class Refuses:
    """Cannot be opened, by a user's mistake."""

    def __init__(self, name: str) -> None:
        raise UserError(f"{name}: no such model")

    def __call__(self, task: int) -> int:
        return task


class WritesParts:
    """Writes a number into a part's file and returns it."""

    def __init__(self, folder: str) -> None:
        self._folder = Path(folder)

    def __call__(self, task: tuple[str, int]) -> int:
        name, number = task
        self._folder.mkdir(exist_ok=True)
        (self._folder / f"part-{name}.txt").write_text(str(number))
        return number
