"""Remove what a workspace can do without: former bundles, and what nothing that is kept was made from."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from pydantic import Field

from cluster.commandline import command
from cluster.lock import Writes
from cluster.options import CommandSettings
from engine.storage.removal import Removal, carry_out
from engine.storage.store import Store
from engine.storage.workspace import Workspace
from jobs import console

if TYPE_CHECKING:
    from jobs.steps.cache_eviction import NodeEviction

EXAMPLES = """
  seedset clean --workspace work --dry-run
  seedset clean --workspace work --keep 3
  seedset clean --workspace s3://bucket/work --keep 1 --caches 30
"""

DAY_S = 24 * 3600.0


class CleanSettings(CommandSettings):
    """The settings of the command."""

    workspace: str = Field(description="Folder or s3:// prefix to clean.")
    keep: int = Field(
        default=3,
        ge=1,
        description="Keep this many bundles, the newest; the current one counts among them and always stays.",
    )
    dry_run: bool = Field(default=False, description="List what would be removed, and remove nothing.")
    unfinished: float = Field(
        default=7,
        ge=0,
        description="Give up trainings and image features that are unfinished after so many days without a "
        "change.",
    )
    caches: float | None = Field(
        default=None,
        gt=0,
        description="Remove the copies out of buckets that were not used for so many days from the cache "
        "(SEEDSET_CACHE, by default ~/.cache/seedset) of this machine, and of every node where RAY_ADDRESS "
        "names a cluster, as under ray job submit.  [default: they stay]",
    )


@command(EXAMPLES, writes=Writes("clean", exclusive=True, unless="dry_run"))
def main(settings: CleanSettings) -> None:
    """Remove former bundles, and what neither a bundle that is kept nor a pointer (CURRENT) was made from.

    That is model input, its parts and their cached states, image features, contrast lists, trainings, and
    evaluations of removed bundles. Trainings that ended lose their checkpoints; what they made stays, with
    its summary and its events. Never touched are the corpus, expansions, answers of chat models, trainings
    that may go on, typing models, reports, and what is not known here, which is named. After a kill at any
    moment nothing is broken that looks whole, and the same command goes on. No other job writes into the
    workspace meanwhile.
    """
    from jobs.steps.cleaning import plan_cleaning
    from jobs.steps.unfinished_uploads import give_up_uploads

    started = time.monotonic()
    workspace = Workspace.open(settings.workspace)
    plan = plan_cleaning(workspace, settings.keep, settings.unfinished * DAY_S)
    say_removals(plan.removals)
    if not plan.removals:
        console.say("nothing to remove: a bundle that is kept, or a pointer, needs all that is there")
    if plan.unknown:
        console.say(f"left alone: {', '.join(plan.unknown)}")
    removed = 0 if settings.dry_run else _carry_out(workspace.root, plan.removals)
    uploads, given_up = give_up_uploads(workspace.root, settings.dry_run)
    evicted = [] if settings.caches is None else _evict(settings, plan.bundles)
    freed = [removal for one in evicted for removal in one.removals]
    console.result(
        bundles_kept=len(plan.bundles),
        removals=len(plan.removals) + uploads + len(freed),
        removed=removed + given_up + sum(one.removed for one in evicted),
        mib=f"{sum(one.bytes for one in plan.removals) / 2**20:.1f}",
        cache_mib=f"{sum(one.bytes for one in freed) / 2**20:.1f}",
        left_alone=len(plan.unknown),
        caches=sum(not one.fault for one in evicted),
        nodes_failed=sum(bool(one.fault) for one in evicted),
        seconds=f"{time.monotonic() - started:.1f}",
    )


def _evict(settings: CleanSettings, bundles: Sequence[str]) -> list[NodeEviction]:
    """Evict from the caches of this machine, and of the other nodes if there is a cluster; say what went."""
    from cluster.session import session
    from jobs.steps.cache_eviction import evict_everywhere
    from jobs.workers.executor import has_cluster

    days = settings.caches or 0.0
    cluster = has_cluster()
    with session() if cluster else nullcontext():
        found = evict_everywhere(days * DAY_S, bundles, settings.dry_run, cluster)
    for one in found:
        if one.fault:
            console.say(f"the cache of {one.node} was not looked at: {one.fault}; run the command again")
        else:
            console.say(f"the cache of {one.node}, {one.cache}, what was not used for {days:g} days:")
            say_removals(one.removals)
    return found


def say_removals(removals: Sequence[Removal]) -> None:
    """Print a line for each thing that goes: its size, what it is, and why it goes."""
    rows = [("MiB", "what", "why")] if removals else []
    rows += [(f"{one.bytes / 2**20:.1f}", f"{one.kind} {one.path}", one.reason) for one in removals]
    size, what = (max((len(row[column]) for row in rows), default=0) for column in (0, 1))
    for row in rows:
        console.say(f"{row[0]:>{size}}  {row[1]:<{what}}  {row[2]}")


def _carry_out(root: Store, removals: Sequence[Removal]) -> int:
    """Remove what a plan lists below a root, and return how many of it."""
    removed = 0
    with console.meter("removing", len(removals)) as meter:

        def done(removal: Removal, gone: bool) -> None:
            nonlocal removed
            removed += gone
            if not gone:
                console.say(f"{removal.path}: has become the current one meanwhile, and stays")
            meter.add(1, removal.path)

        carry_out(root, removals, done)
    return removed


if __name__ == "__main__":
    main.run()
