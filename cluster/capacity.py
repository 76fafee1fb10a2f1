"""Say how many workers fit on a cluster, node by node: a worker's cores lie on one node.

What does not fit Ray keeps waiting for, for ever and without a word. So it is counted before.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from engine.errors import UserError

LEAST_CPUS = 0.5
"""The least share of a core that a training's worker is given."""

_STEP = 1e-4
"""Ray counts in ten thousandths of a core."""


def in_whole_ones(given: float | None) -> float | None:
    """Return the GPUs of an actor, checked to be as Ray counts them (for pydantic).

    Raises:
        ValueError: more than one and not whole.
    """
    if given is not None and given > 1 and given != int(given):
        raise ValueError("give a share of one GPU, such as 0.5, or whole GPUs")
    return given


TensorParallel = Annotated[
    int,
    Field(
        ge=1,
        le=64,
        description="Split a language model over this many processes of a node, each with a GPU of its own "
        "where GPUs are reserved.",
    ),
]
"""The setting of commands that hold a language model."""


def check_group_gpus(gpu: float | None, processes: int) -> None:
    """Check that the GPUs of an actor are one for each process that its language model is split over.

    Args:
        gpu: of the actor; None: as many as that takes.
        processes: of a model; 1: it is not split.

    Raises:
        ValueError: they are others, and more than 0.
    """
    if processes > 1 and gpu not in (None, 0, processes):
        raise ValueError(
            f"{gpu:g} GPUs for a language model that is split over {processes} processes: each has one of "
            f"its own, so give {processes}, 0 for none, or leave it out"
        )


@dataclass(frozen=True)
class Node:
    """The cores, GPUs and bytes of memory of a living node; of memory 0: not known."""

    address: str
    cpus: float
    gpus: float = 0
    memory: float = 0

    def room(self, cpus: float, gpus: float = 0) -> int:
        """Return how many workers of this size fit on the node."""
        rooms = [have / want for have, want in ((self.cpus, cpus), (self.gpus, gpus)) if want > 0]
        return math.floor(min(rooms, default=0) + 1e-9)


def living_nodes() -> list[Node]:
    """Return the living nodes of the cluster that this process is connected to."""
    import ray

    found = [(node["NodeManagerAddress"], node["Resources"]) for node in ray.nodes() if node["Alive"]]
    return [
        Node(address, *(float(has.get(name, 0)) for name in ("CPU", "GPU", "memory")))
        for address, has in found
    ]


def room(nodes: Sequence[Node], cpus: float, gpus: float = 0) -> int:
    """Return how many workers of a size fit on a cluster."""
    return sum(node.room(cpus, gpus) for node in nodes)


def cores_of_a_worker(nodes: Sequence[Node], workers: int, gpu: bool = False) -> float:
    """Return the most cores that each of some workers can have at once, at most a node's.

    Args:
        nodes: of the cluster.
        workers: that train together, and so must all fit.
        gpu: one GPU each.

    Raises:
        UserError: so many do not fit; says how many do.
    """
    gpus = 1 if gpu else 0
    # The largest share leaves no core over on one of the nodes.
    shares = {node.cpus / n for node in nodes for n in range(1, workers + 1) if node.cpus / n >= LEAST_CPUS}
    for share in sorted(shares, reverse=True):
        cores = math.floor(share / _STEP + 1e-9) * _STEP
        if room(nodes, cores, gpus) >= workers:
            return cores
    most, needs = room(nodes, LEAST_CPUS, gpus), "a GPU and half a core" if gpu else "half a core"
    raise UserError(
        f"--workers {workers}: each needs {needs} of one node, so at most {most} fit on this cluster "
        f"({describe(nodes)}); take fewer workers, or bring up more nodes first"
    )


def describe(nodes: Sequence[Node]) -> str:
    """Return the nodes' sizes in words: ``nodes of 4, 1 and 1 cores``."""
    sizes = [f"{node.cpus:g}" + (f" with {node.gpus:g} GPU" if node.gpus else "") for node in nodes]
    if len(sizes) < 2:
        return f"one node of {sizes[0]} cores" if sizes else "no node is up"
    return f"nodes of {', '.join(sizes[:-1])} and {sizes[-1]} cores"


def fits(nodes: Sequence[Node], cpus: Sequence[float]) -> bool:
    """Return whether workers of different sizes fit together, the largest placed first.

    Args:
        nodes: of the cluster.
        cpus: cores of each worker.
    """
    free = [node.cpus for node in nodes]
    for wanted in sorted(cpus, reverse=True):
        place = next((i for i, have in enumerate(free) if have >= wanted - 1e-9), None)
        if place is None:
            return False
        free[place] -= wanted
    return True
