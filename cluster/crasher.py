"""Kill parts of a small cluster while it publishes, serves, expands and trains, and check what must hold.

A cluster of several nodes on this machine, each with a raylet of its own. Every five seconds something dies
with a probability of 0.3, by a schedule that a seed decides: a worker, a replica, the proxy, a node (which
comes back), the driver of a publication or of a table; or the training is stopped. All work runs by the
commands that a user runs. What must hold is in :data:`cluster.crashing.checker.INVARIANTS`.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import Field

from cluster.commandline import command
from cluster.crashing.schedule import EVERY_S, PROBABILITY, STALE_S, schedule
from cluster.options import CommandSettings

EXAMPLES = """
  seedset crash --source demo-workspace/sample
  seedset crash --source demo-workspace/sample --seconds 3600
  seedset crash --source demo-workspace/sample --seed 7 --output crash
"""


class CrashSettings(CommandSettings):
    """The settings of the command."""

    source: Path = Field(description="Work on this corpus, a folder of JSON lines as of `seedset import`.")
    seconds: float = Field(default=300, gt=0, description="Let things die for this long.")
    seed: int | None = Field(
        default=None, ge=0, description="Draw the faults from this seed.  [default: a new one, printed]"
    )
    every: float = Field(default=EVERY_S, gt=0, description="Draw a fault after so many seconds.")
    probability: float = Field(default=PROBABILITY, ge=0, le=1, description="Let it come with this one.")
    nodes: int = Field(default=3, ge=2, description="Run this many nodes; the head stays.")
    cpus_per_node: int = Field(default=2, ge=2, description="Let each node claim this many cores.")
    clients: int = Field(default=2, ge=1, description="Ask the service by this many callers.")
    stale: float = Field(
        default=STALE_S, ge=0, description="Allow answers of a bundle for so many seconds after its end."
    )
    output: Path | None = Field(
        default=None, description="Keep workspace and log in this new folder.  [default: keep nothing]"
    )


@command(EXAMPLES)
def main(settings: CrashSettings) -> None:
    """Kill parts of a small cluster at work, and check that nothing is lost; status 1 if something is."""
    from cluster.crashing.prepared import prepare
    from cluster.crashing.report import lines
    from cluster.crashing.run import found, run

    seed = random.SystemRandom().randrange(1 << 31) if settings.seed is None else settings.seed
    faults = schedule(seed, settings.seconds, settings.every, settings.probability)
    print(f"seed {seed}: {len(faults)} faults in {settings.seconds:g} s", flush=True)
    with _folder(settings.output) as folder:
        prepared = prepare(settings.source, folder, seed)
        print("prepared; the cluster starts", flush=True)
        nodes = (settings.nodes, settings.cpus_per_node)
        log = run(prepared, faults, settings.seconds, folder, nodes, settings.clients)
        violations = found(log, prepared, settings.stale)
        for line in lines(log, violations, seed, settings.seconds):
            print(line, flush=True)
    if violations:
        raise SystemExit(1)


@contextmanager
def _folder(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True)
        yield given.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="seedset-crash-") as folder:
        yield Path(folder)


if __name__ == "__main__":
    main.run()
