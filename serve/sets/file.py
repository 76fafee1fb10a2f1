"""Hold the SQLite file of named sets: its tables, and transactions on it.

What a transaction writes is on disk before it ends (WAL, ``synchronous=FULL``). The file belongs on a local
disk: WAL needs memory that all who have it open share.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.errors import StorageError

BUSY_MS = 10_000
"""Milliseconds that a write waits for one of another process: a replica that goes may still end its own."""

FORMAT = 1
"""Version of the tables, in the file's ``user_version``."""

TABLES = """
CREATE TABLE sets (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, look TEXT NOT NULL UNIQUE, version INTEGER NOT NULL,
    question TEXT NOT NULL, accepted INTEGER NOT NULL, rejected INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE events (
    set_id TEXT NOT NULL REFERENCES sets ON DELETE CASCADE, version INTEGER NOT NULL, at TEXT NOT NULL,
    by TEXT NOT NULL, kind TEXT NOT NULL, content TEXT NOT NULL, note TEXT NOT NULL, key TEXT NOT NULL,
    target INTEGER, undone INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (set_id, version)
) WITHOUT ROWID;
CREATE UNIQUE INDEX event_keys ON events (set_id, key) WHERE key != '';
CREATE INDEX event_kinds ON events (set_id, kind, undone, version);
CREATE TABLE members (
    set_id TEXT NOT NULL REFERENCES sets ON DELETE CASCADE, name TEXT NOT NULL, accepted INTEGER NOT NULL,
    entity INTEGER, bundle TEXT NOT NULL, event INTEGER NOT NULL, place INTEGER NOT NULL,
    PRIMARY KEY (set_id, name)
) WITHOUT ROWID;
"""


class SetFile:
    """The file of sets; may be used from several threads.

    Args:
        path: of the file, which is made if it is not there.

    Attributes:
        connection: to the file; used inside :meth:`writing` and :meth:`reading` alone.

    Raises:
        StorageError: it cannot be opened, or is of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions begin and end as this module says, not where the library would.
            self.connection = sqlite3.connect(
                path, timeout=BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                self.connection.execute(f"PRAGMA {pragma}")
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            raise StorageError(f"{path}: the file of sets cannot be opened ({error}); see --sets") from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self.connection.close()

    def _prepare(self) -> None:
        with self.writing():
            (found,) = self.connection.execute("PRAGMA user_version").fetchone()
            if found == 0:
                for statement in TABLES.split(";"):
                    self.connection.execute(statement)
                self.connection.execute(f"PRAGMA user_version={FORMAT}")
            elif found != FORMAT:
                raise StorageError(f"{self._path}: sets of format {found}, and this version reads {FORMAT}")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Do all that the block does, or nothing of it.

        Raises:
            StorageError: it cannot be written.
        """
        with self._lock:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self.connection.execute("COMMIT")
                except BaseException:
                    self.connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: the set was not changed ({error})") from None

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Let the block see one state of the file.

        Raises:
            StorageError: it cannot be read.
        """
        with self._lock:
            try:
                self.connection.execute("BEGIN")
                try:
                    yield
                finally:
                    self.connection.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise StorageError(f"{self._path}: the sets cannot be read ({error})") from None
