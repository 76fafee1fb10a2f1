"""Store an overlay in one SQLite file: entities as they were sent, their vectors by bundle, and deletions.

Every change has a version of its own. Who follows the file asks for what is newer than the version that it
has. What has been merged into a bundle is dropped; that begins another epoch, in which followers read all
anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.errors import UserError
from serve.settings import ServeSettings
from serve.stores import Json, SqliteFile, local_file

OVERLAY = "Overlay"
"""Name of the deployment that has the file open."""

MAX_ENTITIES = 10_000
MAX_DELETED = 10_000
"""Limits of a file: an overlay is small beside its bundle, and is merged into the next one."""

PUT = "put"
DELETE = "delete"

TABLES = """
CREATE TABLE state (version INTEGER NOT NULL, epoch INTEGER NOT NULL, slots INTEGER NOT NULL, merged TEXT);
INSERT INTO state VALUES (0, 0, 0, NULL);
CREATE TABLE entries (
    name TEXT PRIMARY KEY, slot INTEGER NOT NULL, version INTEGER NOT NULL, kind TEXT NOT NULL,
    content TEXT NOT NULL, replaces INTEGER NOT NULL, by TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX entry_versions ON entries (version);
CREATE TABLE vectors (
    name TEXT NOT NULL REFERENCES entries ON DELETE CASCADE, bundle TEXT NOT NULL, version INTEGER NOT NULL,
    entry INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (name, bundle)
) WITHOUT ROWID;
"""

COLUMNS = "e.name, e.slot, e.version, e.kind, e.content, e.replaces, e.by, e.at"


class OverlayLimitError(UserError):
    """The overlay holds as much as it may."""

    status = 409


class OverlayStore(SqliteFile):
    """The overlay of one file; may be used from several threads.

    Args:
        path: of the file, which is made if it is not there.

    Raises:
        StorageError: it cannot be opened, or is of a newer version.
    """

    TABLES, WHAT, OPTION = TABLES, "added and deleted entities", "--overlay"

    def put(
        self, name: str, content: Mapping[str, Any], replaces: bool, by: str, bundle: str, data: bytes
    ) -> Json:
        """Write an entity with its vectors, in the place of the one of this name that the overlay has.

        Args:
            name: of the entity.
            content: the rest of it, as JSON.
            replaces: whether the bundle has an entity of this name.
            by: who says so.
            bundle: whose encoders made the vectors.
            data: these (:mod:`serve.overlay.encoded`).

        Raises:
            OverlayLimitError: the overlay is full.
        """
        with self._writing():
            known = self._db.execute("SELECT slot, kind FROM entries WHERE name = ?", (name,)).fetchone()
            created = known is None or known[1] == DELETE
            if created:
                self._check_room(PUT, MAX_ENTITIES)
            version, slot = self._next(), known[0] if known else self._next_slot()
            self._write(name, slot, version, PUT, content, replaces, by)
            self._db.execute(
                "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)",
                (name, bundle, version, version, data),
            )
        return {"version": version, "slot": slot, "created": created}

    def delete(self, name: str, replaces: bool, by: str) -> Json:
        """Write that an entity is gone.

        Args:
            name: of the entity.
            replaces: whether the bundle has it.
            by: who says so.

        Raises:
            OverlayLimitError: as many are deleted as may be.
        """
        with self._writing():
            known = self._db.execute("SELECT slot, kind FROM entries WHERE name = ?", (name,)).fetchone()
            if replaces and (known is None or known[1] != DELETE):
                self._check_room(DELETE, MAX_DELETED)
            self._forget_added()
            version, slot = self._next(), known[0] if known else self._next_slot()
            self._write(name, slot, version, DELETE, {}, replaces, by)
            self._db.execute("DELETE FROM vectors WHERE name = ?", (name,))
        return {"version": version}

    def encode(self, bundle: str, made: Sequence[tuple[str, int, bytes]]) -> Json:
        """Write the vectors of entities for another bundle; one that was changed meanwhile is passed over.

        Args:
            bundle: whose encoders made them.
            made: name, version of the entity, and vectors.
        """
        with self._writing():
            version = self._next()
            for name, entry, data in made:
                self._db.execute(
                    "INSERT OR REPLACE INTO vectors SELECT name, ?, ?, version, ? FROM entries "
                    "WHERE name = ? AND version = ? AND kind = ?",
                    (bundle, version, data, name, entry, PUT),
                )
        return {"version": version}

    def drop(self, bundle: str, entries: Sequence[tuple[str, int]]) -> Json:
        """Forget what a bundle holds by now, by name and version; what was changed meanwhile stays."""
        with self._writing():
            dropped = sum(
                self._db.execute("DELETE FROM entries WHERE name = ? AND version = ?", one).rowcount
                for one in entries
            )
            version = self._next()
            if dropped:
                told = json.dumps({"bundle": bundle, "entities": dropped, "at": _now()})
                self._db.execute("UPDATE state SET epoch = epoch + 1, merged = ?", (told,))
        return {"version": version, "dropped": dropped}

    def changes(self, bundle: str, epoch: int, since: int) -> Json:
        """Return what a follower lacks: entries, with their vectors in a bundle where these were made.

        Args:
            bundle: that it follows the overlay of.
            epoch: that it has read; of another one all is returned.
            since: the version that it has.
        """
        with self._reading():
            version, now = self._db.execute("SELECT version, epoch FROM state").fetchone()
            rows = self._db.execute(
                f"SELECT {COLUMNS}, v.data FROM entries e LEFT JOIN vectors v "
                "ON v.name = e.name AND v.bundle = ? AND v.entry = e.version "
                "WHERE MAX(e.version, COALESCE(v.version, 0)) > ? ORDER BY e.version",
                (bundle, since if epoch == now else -1),
            ).fetchall()
        found = [{**_told(row[:8]), "data": row[8]} for row in rows]
        return {"version": version, "epoch": now, "whole": epoch != now, "entries": found}

    def pending(self, bundle: str) -> Json:
        """Return the entries without vectors in a bundle, the deleted ones among them."""
        with self._reading():
            rows = self._db.execute(
                f"SELECT {COLUMNS} FROM entries e LEFT JOIN vectors v "
                "ON v.name = e.name AND v.bundle = ? AND v.entry = e.version WHERE v.name IS NULL",
                (bundle,),
            ).fetchall()
        return {"entries": [_told(row) for row in rows]}

    def version(self) -> Json:
        """Return the version and the epoch."""
        with self._reading():
            version, epoch, merged = self._db.execute("SELECT version, epoch, merged FROM state").fetchone()
        return {"version": version, "epoch": epoch, "merged": json.loads(merged) if merged else None}

    def listing(self, offset: int, limit: int) -> Json:
        """Return entries, last changed first, how many there are of each kind, and whether there are more."""
        state = self.version()
        with self._reading():
            rows = self._db.execute(
                f"SELECT {COLUMNS} FROM entries e ORDER BY e.version DESC LIMIT ? OFFSET ?",
                (limit + 1, offset),
            ).fetchall()
            counts = dict(self._db.execute("SELECT kind, COUNT(*) FROM entries GROUP BY kind").fetchall())
        return {
            **{"version": state["version"], "merged": state["merged"]},
            "counts": {"added": counts.get(PUT, 0), "deleted": counts.get(DELETE, 0)},
            "entries": [_told(row) for row in rows[:limit]],
            "more": len(rows) > limit,
        }

    def _check_room(self, kind: str, most: int) -> None:
        counted = "SELECT COUNT(*) FROM entries WHERE kind = ? AND (replaces OR kind = 'put')"
        (n,) = self._db.execute(counted, (kind,)).fetchone()
        if n >= most:
            what = "added entities" if kind == PUT else "deleted entities"
            raise OverlayLimitError(
                f"the overlay holds {n} {what}, as many as it may: export it (`seedset overlay`), import "
                "that, and build the next bundle, which takes them over"
            )

    def _forget_added(self) -> None:
        """Forget added entities that were deleted again, once there are many."""
        gone = "FROM entries WHERE kind = 'delete' AND NOT replaces"
        (n,) = self._db.execute(f"SELECT COUNT(*) {gone}").fetchone()
        if n >= MAX_DELETED:
            self._db.execute(f"DELETE {gone}")
            self._db.execute("UPDATE state SET epoch = epoch + 1")

    def _next(self) -> int:
        return self._counted("version")

    def _next_slot(self) -> int:
        return self._counted("slots") - 1

    def _counted(self, column: str) -> int:
        self._db.execute(f"UPDATE state SET {column} = {column} + 1")
        (found,) = self._db.execute(f"SELECT {column} FROM state").fetchone()
        return int(found)

    def _write(
        self,
        name: str,
        slot: int,
        version: int,
        kind: str,
        content: Mapping[str, Any],
        replaces: bool,
        by: str,
    ) -> None:
        text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
            "version = excluded.version, kind = excluded.kind, content = excluded.content, "
            "replaces = MAX(replaces, excluded.replaces), by = excluded.by, at = excluded.at",
            (name, slot, version, kind, text, int(replaces), by, _now()),
        )


def overlay_file(settings: ServeSettings) -> Path | None:
    """Return the file of the overlay; None where none is kept."""
    return local_file(settings.overlay, settings.workspace, "overlay/overlay.sqlite")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _told(row: Sequence[Any]) -> Json:
    name, slot, version, kind, content, replaces, by, at = row
    return {
        **{"name": name, "slot": slot, "version": version, "kind": kind, "content": json.loads(content)},
        **{"replaces": bool(replaces), "by": by, "at": at},
    }
