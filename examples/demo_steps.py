"""Runs the demo's commands in one process, and adds up what each took."""

from __future__ import annotations

import gc
import shlex
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table

from cluster.seedset import entries


class Steps:
    """Runs the steps and remembers how long each took.

    Args:
        console: where commands and times are shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        """By the name of the step, of each time that it was done."""

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a block as a step; the same name again counts as the same step."""
        started = time.monotonic()
        yield
        self.seconds[name].append(time.monotonic() - started)

    def run(self, name: str, *words: str) -> None:
        """Show a command as a user would type it, and run it in this process: its imports are loaded once.

        Ends the demo if the command fails.
        """
        self._console.print(f"\n$ seedset {name} {shlex.join(words)}", style="bold cyan", soft_wrap=True)
        with self.timed(name):
            try:
                dict(entries())[name].load().run(words)
            except SystemExit as end:
                if end.code:
                    sys.exit(f"seedset {name} ended with status {end.code}")
        gc.collect()  # models of the step before, which refer to themselves

    def table(self) -> Table:
        """Return the seconds of every step, those of repeated ones added up, and of the whole."""
        table = Table(title="\nseconds", title_justify="left", box=None)
        for column in ("step", "times", "seconds"):
            table.add_column(column, justify="left" if column == "step" else "right")
        for name, each in self.seconds.items():
            table.add_row(name, str(len(each)), f"{sum(each):.1f}")
        total = time.monotonic() - self._started
        known = sum(map(sum, self.seconds.values()))
        table.add_row("between the steps", "", f"{total - known:.1f}")
        table.add_row("in all", "", f"{total:.1f}", style="bold")
        return table
