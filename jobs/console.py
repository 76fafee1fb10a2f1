"""Show every job to a person: help, one-line errors, progress, and a last line that counts.

On a terminal progress is a bar; in a job log, where bars become noise, it is a line every few seconds.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from cluster.commandline import importable, run_app

if TYPE_CHECKING:  # small tools need neither
    from engine.stages.base import Pipeline
    from engine.storage.bundle import Bundle

console = Console(stderr=True, highlight=False)

LOG_EVERY_SECONDS = 10.0


def run(main: Callable[..., None], examples: str) -> None:
    """Run a function with options of typer as a command line; ``examples`` closes its help.

    For small tools: a job's command line is made of its settings, see :mod:`cluster.commandline`.

    A :class:`UserError` (a Ray worker's too: the session hands it on as itself) becomes one line on
    stderr and exit status 2.
    """
    main = importable(main)
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    epilog = "\b\nExamples:\n" + inspect.cleandoc(examples)
    app.command(epilog=epilog)(main)
    run_app(app)


def say(text: str) -> None:
    """Print a line for the person who watches."""
    console.print(text, markup=False, soft_wrap=True)


REFUSED_SHOWN = 5
"""Refused queries that are shown one by one."""


def say_refused(refused: Sequence[object], whereto: str, count: int | None = None) -> None:
    """Print what was refused: the first ones with their reasons, then how many, and what becomes of them.

    Args:
        refused: the first ones, or all.
        whereto: what becomes of them.
        count: of all, where not all are given.
    """
    for refusal in refused[:REFUSED_SHOWN]:
        say(f"REFUSED {refusal}")
    if refused:
        say(f"REFUSED in all: {count or len(refused)} queries; {whereto}")


def result(counted: Mapping[str, Any] = MappingProxyType({}), /, **counts: Any) -> None:
    """Print a job's last line on stdout: ``key=value`` pairs that scripts can read.

    Args:
        counted: what stages counted, for the line's end; a name that the job itself has stays the job's.
        counts: of the job.
    """
    pairs = {**counts, **{name: n for name, n in counted.items() if name not in counts}}
    print(" ".join(f"{key}={value}" for key, value in pairs.items()), flush=True)


def account(pipeline: Pipeline, bundle: Bundle) -> None:
    """Say what stages have spent outside, of money say, as far as they count it."""
    for stage in pipeline.stages:
        if line := stage.account(bundle):
            say(line)


class Meter:
    """Counts work done; a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, label: str, total: int | None, progress: Progress | None) -> None:
        self.label, self.total, self.done = label, total, 0
        self._progress = progress
        self._task = progress.add_task(label, total=total, note="") if progress else None
        self._started = self._logged = time.monotonic()

    def expect(self, total: int) -> None:
        """Say how much work there is, where that is not known from the start."""
        self.total = total
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, total=total)

    def add(self, n: int = 1, note: str = "") -> None:
        """Count ``n`` more; ``note`` (a loss, a rate) is shown beside the bar."""
        self.done += n
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=n, note=note)
        elif time.monotonic() - self._logged >= LOG_EVERY_SECONDS:
            self._logged = time.monotonic()
            of = f"/{self.total}" if self.total else ""
            rate = self.done / max(self._logged - self._started, 1e-9)
            left = f", {_time_left((self.total - self.done) / rate)} left" if self.total and rate else ""
            say(f"{self.label}: {self.done}{of} ({rate:.1f}/s{left}) {note}".rstrip())


def _time_left(seconds: float) -> str:
    """Return a time as people say it: ``40 s``, ``12 min``, ``3 h 20 min``."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


@contextmanager
def meter(label: str, total: int | None = None) -> Iterator[Meter]:
    """Show progress while the block runs."""
    if not console.is_terminal:
        yield Meter(label, total, None)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as progress:
        yield Meter(label, total, progress)


def table(title: str, header: list[str], rows: list[list[str]], texts: int = 1) -> Table:
    """Return a table that fits 80 columns: no frame, one space between columns.

    Args:
        title, header, rows: of the table.
        texts: columns, the first ones, that are flush left.
    """
    table = Table(title=title, title_justify="left", box=None, padding=(0, 1, 0, 0))
    table.pad_edge = False
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place < texts else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
