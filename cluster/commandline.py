"""How a command line ends when the user made a mistake: one line and status 2, no traceback."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from engine.errors import UserError


def run_app(app: typer.Typer) -> None:
    """Run a command line; a :class:`UserError` is printed as one line on stderr, with exit status 2."""
    try:
        app()
    except UserError as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]  # Ray appends its own advice
        terminal = Console(stderr=True, highlight=False)
        terminal.print(f"error: {first}", style="bold red", markup=False, soft_wrap=True)
        sys.exit(2)
