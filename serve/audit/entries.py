"""Describe the entries of the audit log, and choose among them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator

Json = dict[str, Any]

Event = Literal["asked", "curated", "published", "served", "lost"]
EVENTS: tuple[Event, ...] = get_args(Event)
"""A request to a route that needs the right to read, curate or publish; a bundle that came to be served;
entries that could not be written."""

OF_RIGHT: Mapping[str, Event] = {"read": "asked", "curate": "curated", "publish": "published"}

MAX_ENTRY_BYTES = 64 << 10
"""Bytes of a body that are written down: of a longer one its beginning, as text."""


def _no_number(given: Any) -> Any:
    """Refuse what would be read as seconds since 1970.

    Raises:
        ValueError: says how a time is written.
    """
    try:
        float(given)
    except (TypeError, ValueError):
        return given
    raise ValueError("a number is no time; write it as 2026-11-30T08:00")


GivenTime = Annotated[datetime, BeforeValidator(_no_number)]
"""A time as users give it: ISO 8601, a date alone too."""


def now() -> str:
    """Return the time as entries hold it: in UTC, so that its order is that of the text."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def line_of(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line: ASCII, so that nothing in it can look like another line."""
    body = entry.get("body")
    text = "" if body is None else _text(body)
    if len(text) > MAX_ENTRY_BYTES:
        entry = {**entry, "body": text[:MAX_ENTRY_BYTES], "cut": True}
    return _text(entry).encode() + b"\n"


def _text(given: Any) -> str:
    return json.dumps(given, separators=(",", ":"), default=str)


@dataclass(frozen=True)
class Wanted:
    """Which entries are wanted; empty texts: any.

    Args:
        who: the name of the token.
        event: one of :data:`EVENTS`.
        request_id: of the request.
        since: the earliest time; without a zone it is UTC.
        until: the time before which it was.
        offset: newest entries that are passed over.
        limit: entries at most.
    """

    who: str = ""
    event: str = ""
    request_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    offset: int = 0
    limit: int = 100

    def as_given(self) -> Wanted:
        """Return the same with its times in UTC."""
        return replace(self, since=_in_utc(self.since), until=_in_utc(self.until))

    def marks(self) -> tuple[bytes, ...]:
        """Return what stands in the line of every entry that is wanted: a quick look before it is decoded."""
        asked = {"who": self.who, "event": self.event, "request_id": self.request_id}
        return tuple(_text({key: value})[1:-1].encode() for key, value in asked.items() if value)

    def fits(self, entry: Mapping[str, Any]) -> bool:
        """Return whether an entry is wanted."""
        time = entry.get("time", "")
        return (
            (not self.who or entry.get("who") == self.who)
            and (not self.event or entry.get("event") == self.event)
            and (not self.request_id or entry.get("request_id") == self.request_id)
            and (self.since is None or time >= _iso(self.since))
            and (self.until is None or time < _iso(self.until))
        )


def _in_utc(given: datetime | None) -> datetime | None:
    if given is None:
        return None
    try:
        return given.replace(tzinfo=UTC) if given.tzinfo is None else given.astimezone(UTC)
    except OverflowError:  # within a day of the calendar's ends
        return given.replace(tzinfo=UTC)


def _iso(given: datetime) -> str:
    return given.isoformat(timespec="microseconds")
