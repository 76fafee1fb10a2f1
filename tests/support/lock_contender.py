"""A process that holds a workspace again and again, and looks each time who else is in.

``python -m tests.support.lock_contender WORKSPACE INSIDE KIND TRIES``: in the folder INSIDE lies a file for
each that is in. It prints how often it was in, and ends with an error if it met one that it may not meet.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from engine.errors import StorageError
from engine.storage.lock import Timing, hold
from engine.storage.workspace import Workspace


def main(workspace: str, inside: Path, kind: str, tries: int) -> int:
    """Return how often the workspace was held."""
    locks, own, held = Workspace.open(workspace).locks, inside / f"{kind}-{os.getpid()}", 0
    for _ in range(tries):
        try:
            with hold(locks, kind, kind == "exclusive", timing=Timing(tries=3, jitter_s=0.004)):
                own.touch()
                check(inside, own, kind)
                time.sleep(0.001)
                check(inside, own, kind)
                own.unlink()
                held += 1
        except StorageError as error:
            if "--wait" not in str(error):  # it was not refused: something failed
                raise
    return held


def check(inside: Path, own: Path, kind: str) -> None:
    """Fail if somebody is in that may not be."""
    others = [name for name in os.listdir(inside) if name != own.name]
    if (kind == "exclusive" and others) or any(name.startswith("exclusive") for name in others):
        raise AssertionError(f"{own.name} met {others}")


if __name__ == "__main__":
    print(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
