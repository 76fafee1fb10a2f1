"""Show a benchmark's result: a table for people and, as the last line, one JSON document.

The last line has ``name``, ``ratio`` (the comparison's cost over ours: above 1 we are faster),
``floor_ratio`` (our cost over the least that the machine allows) and ``holds`` (the bars are met).
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from rich.console import Console
from rich.table import Table


def medians(
    measured: Mapping[str, Callable[[], Any]],
    rounds: int = 15,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each callable, measured in turn.

    Each round runs all of them once, in an order drawn anew (from a fixed seed): what disturbs the
    machine disturbs all, and none always runs in the wake of the heaviest.
    """
    order = list(measured)
    random = Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in order}
    for turn in range(-warm_up, rounds):
        random.shuffle(order)
        for name in order:
            started = clock()
            measured[name]()
            if turn >= 0:
                seconds[name].append(clock() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], **figures: Any) -> None:
    """Print the table and the closing JSON line.

    Args:
        title: what was measured, with its sizes and units.
        header: the columns' names.
        rows: cells, as shown.
        figures: the JSON document; give at least ``name``, ``ratio``, ``floor_ratio``, ``holds``.
    """
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for place, column in enumerate(header):
        table.add_column(column, justify="left" if place == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    terminal = Console(highlight=False, soft_wrap=True)
    if not terminal.is_terminal:
        terminal.width = 120  # a log: nothing is cut off
    terminal.print(table)
    rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(rounded), flush=True)
