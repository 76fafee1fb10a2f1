"""Store named sets in one SQLite file: events, and beside them what they make of each set.

A change names the version that it saw; SQLite lets one write at a time, so that of two that saw the same
version one is refused.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engine.text.spelling import look_key
from serve.sets.errors import SetChangeError, SetConflictError, SetExistsError, UnknownSetError
from serve.sets.events import ASK, CREATE, JUDGE, RENAME, UNDO, Event, Json, judged, members_of
from serve.stores import SqliteFile

MAX_SETS = 10_000
MAX_MEMBERS = 100_000
MAX_EVENTS = 200_000
"""Limits of a file, and of one set."""

FORMAT = 1
"""Version of what an export holds."""

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

SELECT_EVENTS = "SELECT version, at, by, kind, content, note, key, undone FROM events WHERE set_id = ? "


def now() -> str:
    """Return the time as events hold it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class SetStore(SqliteFile):
    """The sets of one file; may be used from several threads.

    Args:
        path: of the file, which is made if it is not there.
        clock: returns the time of an event.

    Raises:
        StorageError: it cannot be opened, or is of a newer version.
    """

    TABLES, WHAT, OPTION = TABLES, "sets", "--sets"

    def __init__(self, path: Path, clock: Callable[[], str] = now) -> None:
        self._clock = clock
        super().__init__(path)

    def create(self, name: str, question: Json | None, by: str, note: str = "") -> Json:
        """Make an empty set and return it.

        Raises:
            SetExistsError: one has this name.
            SetChangeError: there are :data:`MAX_SETS`.
        """
        content = {"name": name, "question": question}
        return self.load([Event(1, self._clock(), by, CREATE, content, note)])

    def load(self, events: Sequence[Event]) -> Json:
        """Make a set of the events that :meth:`export` wrote, and return it.

        Raises:
            SetExistsError, SetChangeError: as :meth:`create`; an event that cannot follow those before it.
        """
        if not events:
            raise SetChangeError("events: none, and the first creates the set")
        set_id = uuid.uuid4().hex
        with self._writing():
            (many,) = self._db.execute("SELECT COUNT(*) FROM sets").fetchone()
            if many >= MAX_SETS:
                raise SetChangeError(f"there are {many} sets, the most that are kept; delete one")
            row = (set_id, "", set_id, 0, "null", 0, 0)  # until its first event names it
            self._db.execute("INSERT INTO sets VALUES (?, ?, ?, ?, ?, ?, ?)", row)
            for event in events:
                self._write(set_id, event)
        return self.read(set_id)

    def append(
        self, set_id: str, version: int, kind: str, content: Json, by: str, note: str = "", key: str = ""
    ) -> Json:
        """Write an event; return the version that the set has with it, and what can be undone.

        An event whose key is there already is not written again, and answered as the first time.

        Args:
            version: of the set that the change was made of.

        Raises:
            UnknownSetError, SetConflictError, SetExistsError, SetChangeError: nothing was written.
        """
        with self._writing():
            row = self._db.execute("SELECT version FROM sets WHERE id = ?", (set_id,)).fetchone()
            if row is None:
                raise UnknownSetError(set_id)
            known = (
                key
                and self._db.execute(
                    "SELECT version FROM events WHERE set_id = ? AND key = ?", (set_id, key)
                ).fetchone()
            )
            if known:
                return self._summary(set_id) | {"written": known[0]}
            if row[0] != version:
                raise SetConflictError(version, row[0])
            self._write(set_id, Event(version + 1, self._clock(), by, kind, content, note, key))
            return self._summary(set_id) | {"written": version + 1}

    def _write(self, set_id: str, event: Event) -> None:
        """Write an event and what it makes of the set. All in the caller's transaction."""
        (last,) = self._db.execute("SELECT version FROM sets WHERE id = ?", (set_id,)).fetchone()
        if event.version != last + 1:
            raise SetChangeError(f"events: {event.version} follows {last}; versions go up by one")
        if (event.kind == CREATE) != (event.version == 1):
            raise SetChangeError("events: the first creates the set, and no other does")
        if event.version > MAX_EVENTS:
            raise SetChangeError(
                f"the set has {MAX_EVENTS} events, the most that are kept: export it, begin anew"
            )
        if event.kind == UNDO and event.content["undo"] >= event.version:
            raise SetChangeError(f"undo: there is no event {event.content['undo']} yet")
        target = event.content["undo"] if event.kind == UNDO else None
        row = (
            event.version,
            event.at,
            event.by,
            event.kind,
            _text(event.content),
            event.note,
            event.key,
            target,
        )
        self._db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0)", (set_id, *row))
        if event.kind == JUDGE:
            self._put(set_id, members_of(event))
        elif event.kind == UNDO:
            self._undo(set_id, event.content["undo"])
        self._settle(set_id, event.version)

    def _undo(self, set_id: str, version: int) -> None:
        """Cancel an event; where that was an undo, what it cancelled is in force again."""
        found = self._db.execute(
            SELECT_EVENTS + "AND version = ? AND undone = 0", (set_id, version)
        ).fetchone()
        if found is None or found[3] == CREATE:
            raise SetChangeError(f"undo: {version} is no event that can be undone (or it was undone already)")
        event, undone = _event(found), 1
        while True:
            self._db.execute(
                "UPDATE events SET undone = ? WHERE set_id = ? AND version = ?",
                (undone, set_id, event.version),
            )
            if event.kind != UNDO:
                break
            row = self._db.execute(
                SELECT_EVENTS + "AND version = ?", (set_id, event.content["undo"])
            ).fetchone()
            event, undone = _event(row), 1 - undone
        if event.kind == JUDGE:
            names = members_of(event)
            rows = self._db.execute(
                SELECT_EVENTS + "AND kind = ? AND undone = 0 ORDER BY version", (set_id, JUDGE)
            )
            self._put(set_id, {**dict.fromkeys(names), **judged(map(_event, rows), names)})

    def _put(self, set_id: str, members: Json) -> None:
        """Write what became of names: members, or None for what is none."""
        self._db.executemany(
            "DELETE FROM members WHERE set_id = ? AND name = ?", ((set_id, name) for name in members)
        )
        self._db.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                (set_id, m.name, int(m.accepted), m.entity, m.bundle, m.event, m.place)
                for m in members.values()
                if m is not None
            ),
        )

    def _settle(self, set_id: str, version: int) -> None:
        """Bring the set's own row up to its events."""
        last = (
            "SELECT content FROM events WHERE set_id = ? AND kind IN (?, ?) AND undone = 0 "
            "ORDER BY version DESC LIMIT 1"
        )
        (named,) = self._db.execute(last, (set_id, CREATE, RENAME)).fetchone()
        (asked,) = self._db.execute(last, (set_id, CREATE, ASK)).fetchone()
        name = json.loads(named)["name"]
        self._check_name(name, set_id)
        counts = dict(
            self._db.execute(
                "SELECT accepted, COUNT(*) FROM members WHERE set_id = ? GROUP BY accepted", (set_id,)
            )
        )
        if sum(counts.values()) > MAX_MEMBERS:
            raise SetChangeError(f"a set holds at most {MAX_MEMBERS} entities, accepted and rejected")
        self._db.execute(
            "UPDATE sets SET name = ?, look = ?, version = ?, question = ?, accepted = ?, rejected = ? "
            "WHERE id = ?",
            (
                *(name, look_key(name), version, _text(json.loads(asked)["question"])),
                *(counts.get(1, 0), counts.get(0, 0), set_id),
            ),
        )

    def _check_name(self, name: str, set_id: str) -> None:
        other = self._db.execute(
            "SELECT name FROM sets WHERE look = ? AND id != ?", (look_key(name), set_id)
        ).fetchone()
        if other:
            raise SetExistsError(other[0])

    def delete(self, set_id: str, version: int) -> None:
        """Delete a set with its history.

        Raises:
            UnknownSetError, SetConflictError
        """
        with self._writing():
            row = self._db.execute("SELECT version FROM sets WHERE id = ?", (set_id,)).fetchone()
            if row is None:
                raise UnknownSetError(set_id)
            if row[0] != version:
                raise SetConflictError(version, row[0])
            self._db.execute("DELETE FROM sets WHERE id = ?", (set_id,))

    def listing(self, offset: int, limit: int) -> Json:
        """Return sets without their members, last changed first, and whether there are more."""
        with self._reading():
            rows = self._db.execute(
                "SELECT id FROM sets JOIN events ON set_id = id AND events.version = sets.version "
                "ORDER BY at DESC, id LIMIT ? OFFSET ?",
                (limit + 1, offset),
            ).fetchall()
            return {"sets": [self._summary(row[0]) for row in rows[:limit]], "more": len(rows) > limit}

    def _summary(self, set_id: str) -> Json:
        row = self._db.execute(
            "SELECT name, version, accepted, rejected FROM sets WHERE id = ?", (set_id,)
        ).fetchone()
        if row is None:
            raise UnknownSetError(set_id)
        first, last = (
            self._db.execute(
                "SELECT at, by FROM events WHERE set_id = ? AND version = ?", (set_id, v)
            ).fetchone()
            for v in (1, row[1])
        )
        return {
            **{"id": set_id, "name": row[0], "version": row[1]},
            "counts": {"accepted": row[2], "rejected": row[3]},
            **{"created_at": first[0], "created_by": first[1], "changed_at": last[0], "changed_by": last[1]},
            **self._steps(set_id),
        }

    def _steps(self, set_id: str) -> Json:
        """Return the versions of the judgement that is undone next, and of the undo that is."""
        (undo,) = self._db.execute(
            "SELECT MAX(version) FROM events WHERE set_id = ? AND kind = ? AND undone = 0", (set_id, JUDGE)
        ).fetchone()
        (redo,) = self._db.execute(
            "SELECT MAX(u.version) FROM events u "
            "JOIN events e ON e.set_id = u.set_id AND e.version = u.target "
            "WHERE u.set_id = ? AND u.kind = ? AND u.undone = 0 AND e.kind = ? AND u.version > "
            "(SELECT MAX(version) FROM events WHERE set_id = ? AND kind = ?)",
            (set_id, UNDO, JUDGE, set_id, JUDGE),
        ).fetchone()
        return {"undo": undo, "redo": redo}

    def read(self, set_id: str) -> Json:
        """Return a set with its question and its members, in the order in which they were judged.

        Raises:
            UnknownSetError
        """
        with self._reading():
            found = self._summary(set_id)
            (question,) = self._db.execute("SELECT question FROM sets WHERE id = ?", (set_id,)).fetchone()
            rows = self._db.execute(
                "SELECT m.accepted, m.name, m.entity, m.bundle, e.by, e.at, e.note, e.version FROM members m "
                "JOIN events e ON e.set_id = m.set_id AND e.version = m.event "
                "WHERE m.set_id = ? ORDER BY m.event, m.place",
                (set_id,),
            ).fetchall()
        keys = ("name", "id", "bundle", "by", "at", "note", "version")
        members = {
            side: [dict(zip(keys, row[1:], strict=True)) for row in rows if row[0] == accepted]
            for side, accepted in (("accepted", 1), ("rejected", 0))
        }
        return found | {"question": json.loads(question), **members}

    def events(self, set_id: str, after: int, limit: int) -> Json:
        """Return events after a version, oldest first, and whether there are more.

        Raises:
            UnknownSetError
        """
        with self._reading():
            version = self._summary(set_id)["version"]
            rows = self._db.execute(
                SELECT_EVENTS + "AND version > ? ORDER BY version LIMIT ?", (set_id, after, limit + 1)
            ).fetchall()
        shown = [{**_told(_event(row)), "undone": bool(row[7])} for row in rows[:limit]]
        return {"version": version, "events": shown, "more": len(rows) > limit}

    def export(self, set_id: str) -> Json:
        """Return a set and all its events, for :meth:`load`.

        Raises:
            UnknownSetError
        """
        whole = self.read(set_id)
        with self._reading(), closing(self._db.cursor()) as cursor:
            rows = cursor.execute(
                SELECT_EVENTS + "AND version <= ? ORDER BY version", (set_id, whole["version"])
            ).fetchall()
        kept = ("name", "question", "accepted", "rejected")
        return {
            "format": FORMAT,
            **{key: whole[key] for key in kept},
            "events": [_told(_event(r)) for r in rows],
        }


def _text(given: Any) -> str:
    return json.dumps(given, ensure_ascii=False, separators=(",", ":"))


def _event(row: Sequence[Any]) -> Event:
    version, at, by, kind, content, note, key, _ = row
    return Event(version, at, by, kind, json.loads(content), note, key)


def _told(event: Event) -> Json:
    """Return an event as it is shown and exported."""
    about = {"version": event.version, "at": event.at, "by": event.by, "note": event.note}
    return about | {"change": {"kind": event.kind, **event.content}}
