"""Describe a set's changes, and replay them. A set is what its events make it; tables only hold the result.

An undo is an event that cancels another one, also an undo: so it works across sessions, for any change, and
nothing is ever taken out of the history. A change is a JSON object by its kind:

======  ===============================================================================================
create  ``name``, ``question`` (or None)
judge   ``accept`` and ``reject``: each ``{name, id or None}``; ``clear``: names; ``bundle``: of the ids
rename  ``name``
ask     ``question``: the body of a request for an expansion
undo    ``undo``: the version of the event that is cancelled
======  ===============================================================================================
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

CREATE, JUDGE, RENAME, ASK, UNDO = "create", "judge", "rename", "ask", "undo"


@dataclass(frozen=True)
class Event:
    """A change of a set.

    Args:
        version: that the set has with it; the first is 1.
        at: when, in ISO 8601, UTC.
        by: who.
        kind: of the change.
        content: the change, without its kind.
        note: why.
        key: given by who sent it, so that the same event sent twice is written once.
    """

    version: int
    at: str
    by: str
    kind: str
    content: Json
    note: str = ""
    key: str = ""


@dataclass(frozen=True)
class Member:
    """An entity that was judged.

    Args:
        name: by which it is known in every bundle.
        accepted: or rejected.
        entity: its id in ``bundle``; None where that did not hold it.
        event: the version of the event that says so, which has who, when and why.
        place: among those of that event.
    """

    name: str
    accepted: bool
    entity: int | None
    bundle: str
    event: int
    place: int


@dataclass
class SetState:
    """What a set is after its events."""

    name: str = ""
    question: Json | None = None
    members: dict[str, Member] = field(default_factory=dict)


def event_of(told: Json) -> Event:
    """Return an event from the form in which it is shown and exported, in which its change has its kind."""
    change = dict(told["change"])
    return Event(told["version"], told["at"], told["by"], change.pop("kind"), change, told["note"])


def cancelled(events: Sequence[Event]) -> set[int]:
    """Return the versions of the events that later ones cancel."""
    found: set[int] = set()
    for event in reversed(events):
        if event.kind == UNDO and event.version not in found:
            found.add(event.content["undo"])
    return found


def replay(events: Sequence[Event]) -> SetState:
    """Return what the events of a set, in order, make it."""
    undone = cancelled(events)
    state = SetState()
    for event in events:
        if event.version in undone:
            continue
        if event.kind in (CREATE, RENAME):
            state.name = event.content["name"]
        if event.kind in (CREATE, ASK):
            state.question = event.content["question"]
    state.members = judged(event for event in events if event.version not in undone)
    return state


def judged(events: Iterable[Event], only: Collection[str] | None = None) -> dict[str, Member]:
    """Return the members by name after events that are in force, in order; ``only`` those of some names."""
    members: dict[str, Member] = {}
    for event in events:
        if event.kind == JUDGE:
            for name, member in members_of(event).items():
                if only is None or name in only:
                    if member is None:
                        members.pop(name, None)
                    else:
                        members[name] = member
    return members


def members_of(event: Event) -> dict[str, Member | None]:
    """Return what an event makes of each name: a member, or None for one that is cleared."""
    content = event.content
    given = [(True, one) for one in content["accept"]] + [(False, one) for one in content["reject"]]
    cleared: dict[str, Member | None] = dict.fromkeys(content["clear"])
    return cleared | {
        one["name"]: Member(one["name"], accepted, one["id"], content["bundle"], event.version, place)
        for place, (accepted, one) in enumerate(given)
    }
