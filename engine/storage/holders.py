"""Say who holds a workspace, and find out whether a holder still lives.

A holder on this machine is asked of the system: the number of its process and when that began. Of one on
another machine only its file is known, which it writes anew every few seconds.
"""

from __future__ import annotations

import datetime
import getpass
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from engine.errors import StorageError
from engine.storage.local_files import machine_id
from engine.storage.store import Store

_ENDED = ("Z", "X")
"""States of a process that runs no more, though its parent has not asked for its end yet."""
_STARTED = 19
"""Place of the start time among what ``/proc/<pid>/stat`` says after the name: field 22 of proc(5)."""
_GONE = -1


class Holder(BaseModel):
    """The content of a lock's file: a command that works in the workspace.

    Args:
        command: as it is typed.
        exclusive: whether it lets no other one work beside it.
        owner: name of the account.
        host: name of the machine, for people.
        machine: its running kernel and the namespace of process ids, in which ``pid`` means something.
        pid: number of the process.
        started: when that process began, in ticks of the kernel's clock; None where it is not known.
        since: when the command began.
        heartbeat: when this was last written.
        taken_over_by: who has taken the lock over, as :meth:`who` says it; "": nobody has.
        taker: name of that one's own file.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    command: str
    exclusive: bool
    owner: str
    host: str
    machine: str
    pid: int
    started: int | None
    since: datetime.datetime
    heartbeat: datetime.datetime
    taken_over_by: str = ""
    taker: str = ""

    @classmethod
    def here(cls, command: str, exclusive: bool, now: float) -> Holder:
        """Return the holder that this process is.

        Args:
            command: as it is typed.
            exclusive: whether it works alone.
            now: seconds of the wall clock.
        """
        pid = os.getpid()
        return cls(
            command=command,
            exclusive=exclusive,
            owner=_account(),
            host=socket.gethostname(),
            machine=machine_id(),
            pid=pid,
            started=_began(pid),
            since=_utc(now),
            heartbeat=_utc(now),
        )

    @classmethod
    def read(cls, file: Store, content: bytes) -> Holder:
        """Return what a lock's file says.

        Raises:
            StorageError: it cannot be read.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            raise StorageError(
                f"{file.uri}: a lock's file cannot be read ({error.errors()[0]['msg']}); if no other job "
                "works in the workspace, remove the file"
            ) from None

    def with_heartbeat(self, now: float) -> Holder:
        """Return the same holder, alive at a time."""
        return self.model_copy(update={"heartbeat": _utc(now)})

    def content(self) -> bytes:
        """Return what is written into its file."""
        return self.model_dump_json(indent=1).encode() + b"\n"

    def who(self) -> str:
        """Return the command, its account and its process, for people."""
        return f"`seedset {self.command}` of {self.owner} on {self.host} (process {self.pid})"

    def silent_s(self, now: float) -> float:
        """Return seconds since the last heartbeat by the wall clock: negative if its own is ahead of ours."""
        return now - self.heartbeat.timestamp()

    def lives(self) -> bool | None:
        """Return whether its process runs; None where that cannot be found out from here."""
        if self.machine != machine_id():
            return None
        found = _began(self.pid)
        return None if found is None or self.started is None else found == self.started


def in_words(seconds: float) -> str:
    """Return a time such as "40 s", "3 min" or "5 h"."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


@dataclass
class Watch:
    """Watches the files of other machines' holders for a change, by this process' own steady clock.

    Clocks of two machines may differ by any time, so what a file says of the time only raises a doubt.

    Args:
        silence_s: seconds without a change after which a holder counts as gone.
        steady: seconds of a clock that nobody sets.
    """

    silence_s: float
    steady: Callable[[], float]
    _seen: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    _alive: set[str] = field(default_factory=set)

    def is_silent(self, file: Store, content: bytes) -> bool:
        """Note what a file holds now; return whether that has not changed for so long."""
        before, since = self._seen.get(file.path, (content, self.steady()))
        if before != content:
            self._alive.add(file.path)
            since = self.steady()
        self._seen[file.path] = content, since
        return self.steady() - since >= self.silence_s

    def has_changed(self, file: Store) -> bool:
        """Return whether a file was seen to change: its holder lives."""
        return file.path in self._alive


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as containers have
        return f"account {os.getuid()}"


def _began(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; _GONE: there is none; None: it cannot be seen."""
    try:
        # The name stands in brackets and may hold brackets itself.
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2]
    except OSError:
        return _unseen(pid)
    state, started = told.split()[0], told.split()[_STARTED]
    return _GONE if state in _ENDED else int(started)


def _unseen(pid: int) -> int | None:
    """Return _GONE where there is no such process; None: /proc may hide those of other accounts."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return _GONE
    except OSError:
        pass
    return None
