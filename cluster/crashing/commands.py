"""Run the project's commands as a user does, in processes of their own, and let faults end them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from cluster.crashing.events import Ended, Log
from cluster.processes import SHOWN
from engine.errors import UserError

TOLD = {"PYTHONFAULTHANDLER": "1"}
"""Environment in which a command whose native code crashes says where it was."""


def seedset(*words: object) -> list[str]:
    """Return the words of a command of this program."""
    return [sys.executable, "-m", "cluster.seedset", *map(str, words)]


def once(*words: object) -> str:
    """Run a command outside the cluster, and return what it wrote on stdout.

    Raises:
        UserError: it failed; with the end of what it wrote.
    """
    alone = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run(seedset(*words), env=alone, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"seedset {' '.join(map(str, words))}: {done.stderr[-SHOWN:].strip()}")
    return done.stdout


@dataclass
class Running:
    """A place in which one command runs at a time, and a fault may meet it.

    Args:
        name: of the command, for the log.
        log: of the run.
    """

    name: str
    log: Log
    closed: bool = False
    """Whether no command is begun any more."""
    _process: subprocess.Popen[bytes] | None = None
    _struck: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, words: Sequence[str]) -> tuple[Ended, str]:
        """Run a command to its end, unless it is closed; return how it ended, and all that it wrote."""
        if self.closed:
            return Ended(self.log.now(), self.name, -signal.SIGTERM, False), ""
        with tempfile.TemporaryFile() as output:
            with self._lock:
                # Its own session: what a terminal sends to the crasher is not sent to it.
                self._process = subprocess.Popen(
                    words,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=os.environ | TOLD,
                    start_new_session=True,
                )
                self._struck = False
            status = self._process.wait()
            with self._lock:
                self._process, killed = None, self._struck
            output.seek(0)
            written = output.read().decode(errors="replace")
        ended = Ended(self.log.now(), self.name, status, killed, written[-SHOWN:])
        self.log.add(ended)
        return ended, written

    def strike(self) -> str:
        """Kill the command, all its processes, without a goodbye; return which it was, "" if none ran."""
        return self._end(signal.SIGKILL)

    def close(self) -> str:
        """Let the command end, and begin none after it; return which it was, "" if none ran."""
        self.closed = True
        return self._end(signal.SIGTERM)

    def expect_end(self) -> str:
        """Note that the command is ended from elsewhere; return which it was, "" if none runs."""
        with self._lock:
            if self._process is None:
                return ""
            self._struck = True
            return f"{self.name} {self._process.pid}"

    def expect_no_end(self) -> None:
        """Take back :meth:`expect_end`: it did not come to that."""
        with self._lock:
            self._struck = False

    def _end(self, how: signal.Signals) -> str:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                return ""
            self._struck = True
            os.killpg(self._process.pid, how)
            return f"{self.name} {self._process.pid}"


def result_of(written: str) -> dict[str, str]:
    """Return the pairs of a command's last line, ``key=value key=value``; none where it wrote none."""
    for line in reversed(written.splitlines()):
        pairs = [word.partition("=") for word in line.split()]
        if pairs and all(sign and key.isidentifier() for key, sign, _ in pairs):
            return {key: value for key, _, value in pairs}
    return {}
