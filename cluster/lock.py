"""Let a command hold the lock of the workspace that it writes into."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from engine.storage.lock import hold
from engine.storage.workspace import Workspace


@dataclass(frozen=True)
class Writes:
    """Says that a command writes into the workspace that its setting ``workspace`` names.

    Args:
        command: its name, for others that meet its lock.
        exclusive: whether no other command may write meanwhile: it replaces or removes what others read.
            Commands that only add to the workspace go together.
        unless: a setting with which it writes nothing, and needs no lock.
    """

    command: str
    exclusive: bool = False
    unless: str | None = None

    @contextmanager
    def held(self, settings: Any, wait_minutes: float = 0.0) -> Iterator[None]:
        """Hold the workspace for a block, if the command writes with these settings.

        Raises:
            StorageError: another command writes there that this one cannot go together with.
        """
        if self.unless is not None and getattr(settings, self.unless):
            yield
            return
        locks = Workspace.open(settings.workspace).locks
        with hold(locks, self.command, self.exclusive, 60 * wait_minutes):
            yield
