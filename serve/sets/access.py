"""Reach the store of named sets: in this process, or in the one deployment that has its file open."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

from serve.sets.events import Json
from serve.sets.reviews import ReviewStore
from serve.settings import ServeSettings
from serve.stores import LocalStore, local_file

Operation = Literal[
    "create",
    "load",
    "append",
    "delete",
    "listing",
    "read",
    "events",
    "export",
    "begin_review",
    "mark_review",
    "withdraw_review",
    "reviews",
]
"""What can be asked of a store: its methods."""


class Sets(Protocol):
    """A store of named sets, wherever it is."""

    async def __call__(self, operation: Operation, *given: Any) -> Json:
        """Do an operation of :class:`~serve.sets.reviews.ReviewStore`.

        Raises:
            UserError: as the operation.
            UnavailableError: the store does not answer now; whether a change was written is not known.
        """
        ...


class LocalSets(LocalStore[ReviewStore]):
    """A store in this process, opened at the first call."""

    def __init__(self, path: Path) -> None:
        super().__init__(ReviewStore, path)


def sets_file(settings: ServeSettings) -> Path | None:
    """Return the file of the sets; None where none are kept: it is said so, or the workspace is a bucket."""
    return local_file(settings.sets, settings.workspace, "sets/sets.sqlite")
