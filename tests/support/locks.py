"""Clocks that tests set, and holders of a workspace on other machines."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from engine.storage.holders import Holder
from engine.storage.lock import Timing
from engine.storage.store import Store
from engine.storage.workspace import Workspace

NOW = 1_800_000_000.0
"""What the wall clock of :class:`Clock` shows when it begins, in seconds."""


class Clock:
    """Clocks that go on only where somebody sleeps; ``then`` is called after each sleep with the time."""

    def __init__(self, then: Callable[[float], None] = lambda passed: None) -> None:
        self.passed, self.then = 0.0, then

    def sleep(self, seconds: float) -> None:
        self.passed += seconds
        self.then(self.passed)

    @property
    def timing(self) -> Timing:
        return Timing(wall=lambda: NOW + self.passed, steady=lambda: self.passed, sleep=self.sleep)


def stranger(workspace: Workspace, exclusive: bool = True, heartbeat: float = NOW, **told: object) -> Store:
    """Write the file of a holder on another machine."""
    holder = Holder.here("train-encoder", exclusive, heartbeat - 3600).with_heartbeat(heartbeat)
    file = workspace.locks / "stranger.json"
    machine = {"machine": "00000000", "host": "far", "owner": "ada"}
    file.write_bytes(holder.model_copy(update={**machine, **told}).content())
    return file


def heartbeats(file: Store, seconds: float) -> None:
    """Let a holder's clock go on, whatever time it shows."""
    holder = Holder.read(file, file.read_bytes())
    later = holder.heartbeat + datetime.timedelta(seconds=seconds)
    file.write_bytes(holder.with_heartbeat(later.timestamp()).content())
