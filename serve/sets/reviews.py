"""Keep blind second opinions: what curators say of a set's entities, each without the others' marks.

A round holds the entities that the set had when its first review began, and a review of each curator. It is
blind until two or more reviews are there and all are done; then it is told how they agree. Nothing of it
changes the set, and it is no part of the set's history or export. The next round begins after that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from serve.sets.agreement import compared
from serve.sets.errors import SetChangeError
from serve.sets.events import Json
from serve.sets.store import SetStore

ADDED = """
CREATE TABLE IF NOT EXISTS rounds (
    set_id TEXT NOT NULL REFERENCES sets ON DELETE CASCADE, round INTEGER NOT NULL, version INTEGER NOT NULL,
    at TEXT NOT NULL, entities TEXT NOT NULL, PRIMARY KEY (set_id, round)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reviews (
    set_id TEXT NOT NULL, round INTEGER NOT NULL, curator TEXT NOT NULL, at TEXT NOT NULL,
    done TEXT NOT NULL DEFAULT '', PRIMARY KEY (set_id, round, curator),
    FOREIGN KEY (set_id, round) REFERENCES rounds ON DELETE CASCADE
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS marks (
    set_id TEXT NOT NULL, round INTEGER NOT NULL, curator TEXT NOT NULL, name TEXT NOT NULL,
    accepted INTEGER NOT NULL, PRIMARY KEY (set_id, round, curator, name),
    FOREIGN KEY (set_id, round, curator) REFERENCES reviews ON DELETE CASCADE
) WITHOUT ROWID
"""
"""Tables beside those of the sets; an earlier version of the program leaves them alone."""

NAMELESS = "by: say who you are: a review without a name cannot be told from the others"


class ReviewStore(SetStore):
    """The sets of one file, and the reviews of them (:class:`~serve.sets.store.SetStore`)."""

    def __init__(self, path: Path, **given: Any) -> None:
        super().__init__(path, **given)
        with self._writing():
            for statement in ADDED.split(";"):
                self._db.execute(statement)

    def begin_review(self, set_id: str, by: str) -> Json:
        """Return a curator's review of the round that is open, begun now if it was not.

        Returns:
            ``round``, ``version`` of the set, ``curator``, ``done`` and ``entities`` in an order of the
            curator's own, which says nothing of what the set says: each ``name`` and ``accepted``, or None.

        Raises:
            UnknownSetError: there is no such set.
            SetChangeError: no name is given, or there is nothing to judge.
        """
        if not by:
            raise SetChangeError(NAMELESS)
        with self._writing():
            version = self._summary(set_id)["version"]
            known = self._round(set_id)
            if known is None or self._is_complete(set_id, known["round"]):
                known = self._new_round(set_id, version, 1 if known is None else known["round"] + 1)
            place = set_id, known["round"], by
            self._db.execute("INSERT OR IGNORE INTO reviews VALUES (?, ?, ?, ?, '')", (*place, self._clock()))
            return self._review(known, *place)

    def mark_review(
        self,
        set_id: str,
        by: str,
        number: int,
        accept: Sequence[str],
        reject: Sequence[str],
        clear: Sequence[str],
        done: bool,
    ) -> Json:
        """Write marks of a curator's own review, and with ``done`` end it; return how far it is.

        Raises:
            UnknownSetError: there is no such set.
            SetChangeError: there is no such review, it is done, or a name is none of the round's.
        """
        with self._writing():
            self._summary(set_id)
            place = set_id, number, by
            row = self._db.execute(
                "SELECT done FROM reviews WHERE set_id = ? AND round = ? AND curator = ?", place
            ).fetchone()
            if row is None:
                raise SetChangeError(f"round: {by!r} has begun no review in round {number} of this set")
            if row[0]:
                raise SetChangeError("the review is done; its marks do not change any more")
            known = self._round(set_id)
            names = {name for name, _ in known["entities"]} if known else set()
            given = {**dict.fromkeys(accept, 1), **dict.fromkeys(reject, 0)}
            if unknown := next((name for name in (*given, *clear) if name not in names), None):
                raise SetChangeError(f"{unknown[:80]!r} is none of the entities of round {number}")
            self._db.executemany(
                "DELETE FROM marks WHERE set_id = ? AND round = ? AND curator = ? AND name = ?",
                ((*place, name) for name in (*given, *clear)),
            )
            self._db.executemany(
                "INSERT INTO marks VALUES (?, ?, ?, ?, ?)", ((*place, *one) for one in given.items())
            )
            if done:
                self._db.execute(
                    "UPDATE reviews SET done = ? WHERE set_id = ? AND round = ? AND curator = ?",
                    (self._clock(), *place),
                )
            judged = len(self._marks(*place))
        return {"round": number, "judged": judged, "entities": len(names), "done": done}

    def withdraw_review(self, set_id: str, curator: str) -> Json:
        """Delete a review of the round that is open, and the round with the last one; return what is left.

        Raises:
            UnknownSetError: there is no such set.
            SetChangeError: the curator has none that is open.
        """
        with self._writing():
            self._summary(set_id)
            known = self._round(set_id)
            number = known["round"] if known and not self._is_complete(set_id, known["round"]) else 0
            place = set_id, number, curator
            gone = self._db.execute(
                "DELETE FROM reviews WHERE set_id = ? AND round = ? AND curator = ?", place
            ).rowcount
            if not gone:
                raise SetChangeError(f"curator: {curator[:80]!r} has no blind review of this set")
            if not self._reviewers(set_id, number):
                self._db.execute("DELETE FROM rounds WHERE set_id = ? AND round = ?", (set_id, number))
        return self.reviews(set_id, 0)

    def reviews(self, set_id: str, limit: int) -> Json:
        """Return how far the last round is, and once all its reviews are done how far they agree.

        Args:
            limit: entities that are listed at most of those on which they do not agree.

        Raises:
            UnknownSetError: there is no such set.
        """
        with self._reading():
            self._summary(set_id)
            known = self._round(set_id)
            if known is None:
                return {"round": 0, "version": 0, "entities": 0, "reviewers": [], "agreement": None}
            number, entities = known["round"], known["entities"]
            reviewers = self._reviewers(set_id, number)
            told = {"round": number, "version": known["version"], "entities": len(entities)}
            if not self._is_complete(set_id, number):
                return {**told, "reviewers": reviewers, "agreement": None}
            marks = {one["name"]: self._marks(set_id, number, one["name"]) for one in reviewers}
        said = {name: {who: own[name] for who, own in marks.items() if name in own} for name, _ in entities}
        return {**told, "reviewers": reviewers, "agreement": compared(said, dict(entities), limit)}

    def _round(self, set_id: str) -> Json | None:
        row = self._db.execute(
            "SELECT round, version, entities FROM rounds WHERE set_id = ? ORDER BY round DESC LIMIT 1",
            (set_id,),
        ).fetchone()
        return row and {"round": row[0], "version": row[1], "entities": json.loads(row[2])}

    def _new_round(self, set_id: str, version: int, number: int) -> Json:
        rows = self._db.execute(
            "SELECT name, accepted FROM members WHERE set_id = ? ORDER BY name", (set_id,)
        )
        entities = [[name, bool(accepted)] for name, accepted in rows]
        if not entities:
            raise SetChangeError("the set is empty: there is nothing to judge")
        held = json.dumps(entities, ensure_ascii=False, separators=(",", ":"))
        self._db.execute(
            "INSERT INTO rounds VALUES (?, ?, ?, ?, ?)", (set_id, number, version, self._clock(), held)
        )
        return {"round": number, "version": version, "entities": entities}

    def _is_complete(self, set_id: str, number: int) -> bool:
        """Whether two or more reviewed and all are done: all may see the marks then."""
        many, done = self._db.execute(
            "SELECT COUNT(*), SUM(done != '') FROM reviews WHERE set_id = ? AND round = ?", (set_id, number)
        ).fetchone()
        return bool(many > 1 and many == done)

    def _review(self, known: Json, set_id: str, number: int, curator: str) -> Json:
        (done,) = self._db.execute(
            "SELECT done FROM reviews WHERE set_id = ? AND round = ? AND curator = ?",
            (set_id, number, curator),
        ).fetchone()
        marks = self._marks(set_id, number, curator)
        names = [name for name, _ in known["entities"]]
        names.sort(key=lambda name: sha256(f"{set_id}\0{number}\0{curator}\0{name}".encode()).digest())
        return {
            **{"round": number, "version": known["version"], "curator": curator, "done": bool(done)},
            "entities": [{"name": name, "accepted": marks.get(name)} for name in names],
        }

    def _reviewers(self, set_id: str, number: int) -> list[Json]:
        rows = self._db.execute(
            "SELECT r.curator, r.at, r.done, COUNT(m.name) FROM reviews r LEFT JOIN marks m "
            "ON m.set_id = r.set_id AND m.round = r.round AND m.curator = r.curator "
            "WHERE r.set_id = ? AND r.round = ? GROUP BY r.curator ORDER BY r.at, r.curator",
            (set_id, number),
        )
        keys = ("name", "since", "done", "judged")
        return [{**dict(zip(keys, row, strict=True)), "done": bool(row[2])} for row in rows]

    def _marks(self, set_id: str, number: int, curator: str) -> dict[str, bool]:
        rows = self._db.execute(
            "SELECT name, accepted FROM marks WHERE set_id = ? AND round = ? AND curator = ?",
            (set_id, number, curator),
        )
        return {name: bool(accepted) for name, accepted in rows}
