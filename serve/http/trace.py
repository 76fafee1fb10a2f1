"""Note what the log and the metrics say of a request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Trace:
    """A record of one request for the log and the metrics; filled while it is answered."""

    request_id: str = ""
    caller: str = ""
    rights: str = ""
    """What the caller may do."""
    needed: str = ""
    """The right that the route needs; empty: none."""
    route: Any = None
    """The route that the request goes to, also where it is refused before it comes there."""
    asked: Any = None
    """The body, decoded: for the audit log."""
    asked_bytes: int = 0
    method: str = ""
    bundle: str = ""
    queries: int = 0
    degraded: int = 0
