"""Run `seedset clean` on two nodes with a cache each, in a process of its own: the caches, then its words."""

from __future__ import annotations

import os
import sys

from cluster.local import local_cluster
from jobs.clean import main
from tests.support.commands import run_command


def run(first: str, second: str, *words: str) -> int:
    """Start the nodes, the second of which has another cache, and clean from the first."""
    os.environ["SEEDSET_CACHE"] = second
    with local_cluster(1, 1) as running:
        running.add_node()  # knows the environment of this moment
        os.environ |= {"SEEDSET_CACHE": first, "RAY_ADDRESS": running.address}
        return run_command(main, *words)


if __name__ == "__main__":
    sys.exit(run(*sys.argv[1:]))
