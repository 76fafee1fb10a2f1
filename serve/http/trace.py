"""Note what the log and the metrics say of a request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Trace:
    """A record of one request for the log and the metrics; filled while it is answered."""

    request_id: str = ""
    caller: str = ""
    method: str = ""
    bundle: str = ""
    queries: int = 0
    degraded: int = 0
