"""Runs a command line in this process, as a user would type it."""

from __future__ import annotations

from typing import Any

from cluster.commandline import Command


def run_command(main: Command[Any], *words: object) -> int:
    """Run a command with these words as its command line; return the exit status."""
    try:
        main.run(words)
    except SystemExit as end:
        return int(end.code or 0)
    return 0
