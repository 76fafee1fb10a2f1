"""Make anew, after the corpus has changed, what was made from it before, with the settings that it has.

Nothing is made twice: sentences whose frozen states are known are not read again, the encoder goes on from
the earlier one, and a command that was stopped goes on where it was.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pydantic import Field
from rich.console import Console

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import RUN, CommandSettings, declared
from engine.storage.bundle import Bundle, current_id
from engine.storage.workspace import Workspace
from jobs import console
from jobs.settings import TRAINING, TrainingProcesses
from jobs.steps.query_tables import QueryTableSettings

if TYPE_CHECKING:
    from jobs.steps.refreshing import Refresh

EXAMPLES = """
  seedset refresh --workspace work --dry-run
  seedset refresh --workspace work
  seedset refresh --workspace s3://bucket/work --epochs 3 --queries q.jsonl
"""


class RefreshSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix whose corpus has changed.")
    dry_run: bool = Field(default=False, description="List what is stale, and why; make nothing.")
    epochs: int = Field(
        default=0,
        ge=0,
        description="Train encoders on for this many epochs where the corpus has grown; 0: they stay, and "
        "read what is new as they have learnt to.",
    )
    warm: bool = Field(
        default=True,
        description="Let encoders stay, or go on, where the corpus has grown from the one that they saw; "
        "--no-warm: trainings begin anew, with the epochs that they had.",
    )
    queries: str | None = Field(
        default=None,
        description="Measure `default` on these queries before and after, and say how far it moved.",
    )
    columns: str = declared(QueryTableSettings, "columns")
    processes: TrainingProcesses = TrainingProcesses()
    pool: int | None = Field(
        default=None, ge=1, description="Run this many actors a pool.  [default: the cluster's CPUs]"
    )

    def unused(self) -> dict[str, str]:
        """Return the options that the command does without, and why."""
        found = {} if self.warm else {"epochs": "with --no-warm"}
        found |= {} if self.queries else {"columns": "without --queries"}
        return found | ({"queries": "with --dry-run"} if self.dry_run else {})


@command(
    EXAMPLES,
    headings={"epochs": TRAINING, "warm": TRAINING, "processes": RUN, "pool": RUN},
    writes=Writes("refresh", exclusive=True, unless="dry_run"),
)
def main(settings: RefreshSettings) -> None:
    """Make anew what is of a former corpus: model input, image features, encoders, the index.

    Run it after `seedset import --append`. Each thing is made with the settings that it has, the last one is
    published as the current bundle. A text encoder stays as it is unless --epochs says more, and reads what
    is new. What a bundle has besides stays: the language model, which knows new
    names by a trie of all.
    """
    from jobs.steps.refreshing import HowRefreshed, Refresh

    started = time.monotonic()
    workspace = Workspace.open(settings.workspace)
    how = HowRefreshed(settings.epochs, settings.warm, settings.processes, settings.pool)
    plan = Refresh(workspace, how)
    _show(plan)
    if settings.dry_run or not plan.steps:
        console.result(stale=len(plan.steps))
        return
    for number, step in enumerate(plan.steps, 1):
        console.say(f"{number} of {len(plan.steps)}: {step.command}, {step.what}")
        step.run()
    moved = _moved(workspace, plan, settings)
    seconds = f"{time.monotonic() - started:.1f}"
    console.result(stale=len(plan.steps), bundle=current_id(workspace), **moved, seconds=seconds)


def _show(plan: Refresh) -> None:
    rows = [[step.command, step.what, step.why] for step in plan.steps]
    if rows:
        terminal = Console(highlight=False)
        if not terminal.is_terminal:
            terminal.width = 200  # a log: nothing is cut off
        terminal.print(console.table("stale", ["command", "of", "why"], rows, texts=3))
    else:
        console.say("nothing is stale")
    for note in plan.notes:
        console.say(note)


def _moved(workspace: Workspace, plan: Refresh, settings: RefreshSettings) -> dict[str, str]:
    """Return how far answers have moved: shares of neighbours, and figures of queries if there are any."""
    from jobs.steps.bundle_comparison import measured, neighbor_overlap_of

    if plan.before is None or plan.before.id == current_id(workspace):
        return {}
    before, after = Bundle.open(workspace, plan.before.id), Bundle.open(workspace)
    share = neighbor_overlap_of(before, after)
    found = {} if share is None else {"neighbor_overlap": f"{share:.3f}"}
    if settings.queries is not None:
        was, now = measured(workspace, (before, after), settings.queries, settings.columns)
        for name in was:
            console.say(f"default, {name}: {was[name]:.2f} before, {now[name]:.2f} now")
        name = next(iter(was))
        found |= {f"{name}_before": f"{was[name]:.2f}", name: f"{now[name]:.2f}"}
    return found


if __name__ == "__main__":
    main.run()
