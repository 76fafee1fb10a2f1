"""Keep what is written to a service in one SQLite file, which one process has open. Knows no Ray.

Every change is one transaction, on disk before it is answered (WAL, ``synchronous=FULL``): a process that is
killed leaves it whole or not at all. The file belongs on a local disk: WAL needs memory that all who have it
open share.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from engine.errors import StorageError
from engine.storage.workspace import Workspace
from serve.settings import NONE

Json = dict[str, Any]
S = TypeVar("S")

BUSY_MS = 10_000
"""Milliseconds that a write waits for one of another process: a replica that goes may still end its own."""


class SqliteFile:
    """An open file; may be used from several threads.

    Args:
        path: of the file, which is made if it is not there.

    Raises:
        StorageError: it cannot be opened, or is of a newer version.
    """

    TABLES: ClassVar[str]
    """Statements that make the tables, with semicolons between them."""
    FORMAT: ClassVar[int] = 1
    """Version of the tables, in the file's ``user_version``."""
    WHAT: ClassVar[str]
    """What the file holds, for what is said of it."""
    OPTION: ClassVar[str]
    """That names the file."""

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions begin and end as this module says, not where the library would.
            self._db = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self._db.execute(f"PRAGMA {pragma}")
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StorageError(
                f"{path}: the file of {self.WHAT} cannot be opened ({error}); see {self.OPTION}"
            ) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _prepare(self) -> None:
        with self._writing():
            (found,) = self._db.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in self.TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={self.FORMAT}")
            elif found != self.FORMAT:
                raise StorageError(
                    f"{self._path}: {self.WHAT} of format {found}, and this version reads {self.FORMAT}"
                )

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Do all that the block does, or nothing of it.

        Raises:
            StorageError: it cannot be written.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:  # SQLite ends it by itself where the disk is full
                        self._db.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StorageError(
                    f"{self._path}: nothing was changed of {self.WHAT} ({error})",
                    public=f"nothing was changed: the service cannot write its file of {self.WHAT}; "
                    "its log says why",
                ) from None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Let the block see one state of the file.

        Raises:
            StorageError: it cannot be read.
        """
        with self._lock:
            try:
                self._db.execute("BEGIN")
                try:
                    yield
                finally:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: {self.WHAT} cannot be read ({error})") from None


def local_file(given: str | None, workspace: str, default: str) -> Path | None:
    """Return the file of a store; None where none is kept: it is said so, or the workspace is a bucket.

    Args:
        given: the setting: a path, :data:`NONE`, or nothing.
        workspace: folder or prefix.
        default: the file's place in it.
    """
    if given == NONE:
        return None
    if given is not None:
        return Path(given).absolute()
    if workspace.startswith("s3://"):
        return None
    return Path(Workspace.open(workspace).root.path).absolute() / default


class LocalStore(Generic[S]):
    """A store in this process, opened at the first call.

    Args:
        kind: opens it, given its path.
        path: of its file.
    """

    def __init__(self, kind: Callable[[Path], S], path: Path) -> None:
        self._kind, self._path, self._opening = kind, path, asyncio.Lock()
        self._store: S | None = None

    async def open(self) -> None:
        """Open the file now.

        Raises:
            StorageError: it cannot be opened.
        """
        async with self._opening:
            self._store = self._store or await asyncio.to_thread(self._kind, self._path)

    async def __call__(self, operation: str, *given: Any) -> Json:
        """Do an operation, a method of the store, in a thread."""
        await self.open()
        done: Callable[..., Json | None] = getattr(self._store, operation)
        return await asyncio.to_thread(done, *given) or {}
