"""Reach the store of named sets: in this process, or in the one deployment that has its file open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from engine.storage.workspace import Workspace
from serve.sets.events import Json
from serve.sets.store import SetStore
from serve.settings import NO_SETS, ServeSettings
from serve.stores import LocalStore

Operation = Literal["create", "load", "append", "delete", "listing", "read", "events", "export"]
"""What can be asked of a store: its methods."""


class Sets(Protocol):
    """A store of named sets, wherever it is."""

    async def __call__(self, operation: Operation, *given: Any) -> Json:
        """Do an operation of :class:`~serve.sets.store.SetStore`.

        Raises:
            UserError: as the operation.
            UnavailableError: the store does not answer now; whether a change was written is not known.
        """
        ...


class LocalSets(LocalStore[SetStore]):
    """A store in this process, opened at the first call."""

    def __init__(self, path: Path) -> None:
        super().__init__(SetStore, path)


def sets_file(settings: ServeSettings) -> Path | None:
    """Return the file of the sets; None where none are kept: it is said so, or the workspace is a bucket."""
    if settings.sets == NO_SETS:
        return None
    if settings.sets is not None:
        return Path(settings.sets).absolute()
    if settings.workspace.startswith("s3://"):
        return None
    return Path(Workspace.open(settings.workspace).root.path).absolute() / "sets" / "sets.sqlite"
