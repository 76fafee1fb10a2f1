"""Define what is seen of a run: what the checker reads, and the log on the disk holds a line each of."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypeVar

T = TypeVar("T")


class Pointed(NamedTuple):
    """The workspace's pointer to its current bundle, seen with a new content."""

    at: float
    bundle: str


class Answered(NamedTuple):
    """A request and what came of it.

    Args:
        at: second of the answer, or at which the caller gave up.
        sent: second at which it was sent first.
        query, method: what was asked.
        top_k: entities that were asked for.
        body: what is checked of the answer (:func:`cluster.crashing.clients.seen`); None: none came.
        tries: times that it was sent.
        why: what came in place of an answer, the last time.
    """

    at: float
    sent: float
    query: str
    method: str
    top_k: int
    body: Mapping[str, Any] | None
    tries: int = 1
    why: str = ""


class Expanded(NamedTuple):
    """A table that was expanded, read when its command said that it was done.

    Args:
        at: second.
        output: its folder.
        queries: the id of each row of rank 0 or 1, in order.
        digests: sha256 of each part, by its name.
        remade: parts that were there whole, and were written again.
        lost: rows (queries) that no whole part held when a command for it died.
        again: rows that the commands after it say that they computed.
    """

    at: float
    output: str
    queries: list[str]
    digests: dict[str, str]
    remade: list[str]
    lost: int
    again: int


class Trained(NamedTuple):
    """A training that ended.

    Args:
        at: second.
        loss: the last step's.
        steps: taken in all.
        resumed_at: step from which its last life went on.
        stopped_at: the newest checkpoint's step when it was stopped last; None: it was not, or had none.
    """

    at: float
    loss: float
    steps: int
    resumed_at: int
    stopped_at: int | None = None


class Ended(NamedTuple):
    """A command that ended.

    Args:
        at: second.
        command: its name.
        status: that it ended with.
        killed: whether the schedule killed it.
        output: the end of what it wrote.
    """

    at: float
    command: str
    status: int
    killed: bool
    output: str = ""


class Struck(NamedTuple):
    """A fault that came; ``victim`` is "" where there was nothing of its kind."""

    at: float
    kind: str
    victim: str


Event = Pointed | Answered | Expanded | Trained | Ended | Struck


class Log:
    """The events of a run in the order in which they came, from any thread.

    Args:
        path: of a file that gets a line of JSON an event.
        clock: seconds since the load began.
    """

    def __init__(self, path: Path, clock: Callable[[], float] | None = None) -> None:
        began = time.monotonic()
        self.now = clock or (lambda: time.monotonic() - began)
        self._file: TextIO = path.open("w", encoding="utf-8")
        self._events: list[Event] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, event: Event) -> None:
        """Keep an event."""
        line = json.dumps({"event": type(event).__name__, **event._asdict()}, ensure_ascii=False)
        with self._lock:
            self._events.append(event)
            print(line, file=self._file, flush=True)

    def of(self, kind: type[T]) -> list[T]:
        """Return the events of a kind."""
        with self._lock:
            return [event for event in self._events if isinstance(event, kind)]
