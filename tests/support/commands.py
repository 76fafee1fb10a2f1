"""Runs a job's command line in this process, as a user would type it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from jobs import console


def run_command(main: Callable[..., None], *words: object) -> int:
    """Run ``main`` with these words as its command line; return the exit status."""
    before, sys.argv = sys.argv, ["job", *map(str, words)]
    try:
        console.run(main, "")
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0
