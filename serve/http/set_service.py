"""Answer requests for named sets: names to entities of the bundle that is served, and back."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from engine.errors import UnknownEntityError
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.errors import Problem, ProblemError, invalid, problem_of
from serve.http.requests import ExpandRequest
from serve.http.service import Service
from serve.http.set_requests import (
    MAX_CURATOR,
    ChangeSetRequest,
    CreateSetRequest,
    ImportSetRequest,
    Judge,
)
from serve.sets.access import Sets
from serve.sets.agreement import agreement
from serve.sets.events import Event, Json, event_of, replay

IMPORTER = 64
"""Characters of the name of who imports a set that stand in its events."""

LIKE = 3
"""Names that are suggested in the place of one that is unknown."""

OFF = (
    "this service keeps no sets: its workspace is in a bucket, or --sets says so; start it with --sets FILE, "
    "on a local disk of the cluster's head"
)


class SetService:
    """Named sets over a store; None: there is none.

    Args:
        service: names the bundle that is served.
    """

    def __init__(self, service: Service, sets: Sets | None) -> None:
        self._service, self._sets = service, sets

    @property
    def store(self) -> Sets:
        """The store of the sets.

        Raises:
            ProblemError: none are kept (404).
        """
        if self._sets is None:
            raise ProblemError(Problem("not_available", OFF, 404))
        return self._sets

    async def create(self, asked: CreateSetRequest, by: str) -> Json:
        """Make a set."""
        found = await self.store(
            "create", asked.name, self._question(asked.question, "question"), by, asked.note
        )
        return await self._shown(found)

    async def read(self, set_id: str) -> Json:
        """Return a set, with the ids that its entities have now."""
        return await self._shown(await self.store("read", set_id))

    async def change(self, set_id: str, asked: ChangeSetRequest, by: str) -> Json:
        """Write an event.

        Raises:
            UserError: it cannot be, or was made of an older version.
        """
        change, store = asked.change, self.store
        if isinstance(change, Judge):
            content = await self._judged(set_id, change)
        elif change.kind == "ask":
            content = {"question": self._question(change.question, "change.question")}
        else:
            content = change.model_dump(exclude={"kind"})
        given = (asked.version, change.kind, content, by, asked.note, asked.id or "")
        return await store("append", set_id, *given)

    async def agreement(self, set_id: str, curator: str, limit: int) -> Json:
        """Return how far the curators of a set agree, with the ids that entities have now."""
        whole = await self.store("export", set_id)
        snapshot = self._service.snapshot

        def told() -> Json:
            found = agreement([event_of(one) for one in whole["events"]], curator, limit)
            for one in found["disagreements"]:
                one["id"] = snapshot.vocabulary.find(one["name"])
            return {"bundle": snapshot.id, "version": whole["events"][-1]["version"], **found}

        return await asyncio.to_thread(told)

    async def load(self, asked: ImportSetRequest, caller: str) -> Json:
        """Make a set of what an export holds.

        Args:
            asked: the export.
            caller: name of the token that brings it, which every event then says besides what the file does:
                a file can hold any name. Empty where there are no tokens.

        Raises:
            ProblemError: the events do not make what the rest says.
        """
        store = self.store
        events = [event_of(one.model_dump(exclude_unset=True)) for one in asked.events]
        if caller:
            events = [replace(event, by=_brought(event.by, caller)) for event in events]
        await asyncio.to_thread(_check_whole, asked, events)
        return await self._shown(await store("load", events))

    def _question(self, given: ExpandRequest | None, field: str) -> Json | None:
        if given is None:
            return None
        most = self._service.settings.max_top_k
        if given.top_k > most:
            raise invalid(f"{field}.top_k: {given.top_k} is more than {most}", f"{field}.top_k")
        return given.model_dump(exclude_unset=True)

    async def _shown(self, found: Json) -> Json:
        snapshot = self._service.snapshot

        def shown() -> Json:
            sides = {
                side: [_member(snapshot, one) for one in found[side]] for side in ("accepted", "rejected")
            }
            return {**found, "bundle": snapshot.id, **sides}

        return await asyncio.to_thread(shown)

    async def _judged(self, set_id: str, change: Judge) -> Json:
        """Return a judgement with the names and ids of the bundle; what that lacks must be in the set."""
        snapshot = self._service.snapshot
        find = snapshot.vocabulary.find
        unknown = any(find(name) is None for name in (*change.accept, *change.reject))
        held: set[str] = set()
        if unknown:
            found = await self.store("read", set_id)
            held = {one["name"] for side in ("accepted", "rejected") for one in found[side]}
        accept, reject = (
            _entities(snapshot, names, f"change.{side}", held)
            for side, names in (("accept", change.accept), ("reject", change.reject))
        )
        for place, name in enumerate(reject):
            if name in accept:
                raise invalid(f"{name!r} is accepted and rejected at once", f"change.reject.{place}")
        # As it is given too: a name that was saved may since have become another's alias.
        cleared = dict.fromkeys(name for given in change.clear for name in (given, _name(snapshot, given)))
        return {
            "accept": [{"name": name, "id": entity} for name, entity in accept.items()],
            "reject": [{"name": name, "id": entity} for name, entity in reject.items()],
            "clear": [name for name in cleared if name not in accept and name not in reject],
            "bundle": snapshot.id,
        }


def _name(snapshot: BundleSnapshot, given: str) -> str:
    entity = snapshot.vocabulary.find(given)
    return given if entity is None else snapshot.vocabulary.names[entity]


def _entities(
    snapshot: BundleSnapshot, names: Sequence[str], field: str, held: set[str]
) -> dict[str, int | None]:
    """Return entities by their own names; of those that the bundle lacks, the ones that are ``held``.

    Raises:
        ProblemError: the bundle and the set know no such name (422).
    """
    vocabulary = snapshot.vocabulary
    found: dict[str, int | None] = {}
    for place, given in enumerate(names):
        entity = vocabulary.find(given)
        if entity is None and given not in held:
            like = [vocabulary.names[one.entity] for one in islice(vocabulary.search(given), LIKE)]
            where = f"{field}.{place}"
            raise ProblemError(problem_of(UnknownEntityError(given, like, where), where))
        found[given if entity is None else vocabulary.names[entity]] = entity
    return found


def _member(snapshot: BundleSnapshot, one: Json) -> Json:
    kept = {key: one[key] for key in ("name", "by", "at", "note", "version")}
    now = {"id": snapshot.vocabulary.find(one["name"])}
    return {**kept, **now, "saved_id": one["id"], "saved_bundle": one["bundle"]}


def _brought(by: str, caller: str) -> str:
    """Return who an imported event is by: whom the file names, and who brought it, as long as is allowed."""
    mark = f"(imported by {caller[:IMPORTER]})"
    if by.endswith(mark):
        return by
    return f"{by[: MAX_CURATOR - len(mark) - 1]} {mark}".strip()


def _check_whole(asked: ImportSetRequest, events: Sequence[Event]) -> None:
    """Refuse a file of which a part is missing or was changed."""
    state = replay(events)
    made = {
        accepted: {m.name for m in state.members.values() if m.accepted is accepted}
        for accepted in (True, False)
    }
    for side, given, accepted in (("accepted", asked.accepted, True), ("rejected", asked.rejected, False)):
        names = {one.get("name") if isinstance(one, dict) else None for one in given}
        if names != made[accepted]:
            raise invalid(f"{side}: {len(given)} are listed, but the events make {len(made[accepted])}", side)
    if state.name != asked.name:
        raise invalid(f"name: {asked.name!r}, but the events make it {state.name!r}", "name")
