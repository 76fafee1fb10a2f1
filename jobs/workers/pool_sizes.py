"""Say how large the actor pools of a batch expansion are: by cores, memory and GPUs of the cluster's nodes.

What does not fit Ray keeps waiting for, and a pool that cannot start makes those before it wait for ever.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.capacity import Node, describe, fits, room
from engine.errors import UserError
from engine.storage.bundle import Bundle
from jobs.workers.chain import Chain

ACTOR_BYTES = 1 << 29
"""Memory that an actor is given beside a language model: ``default`` on 4,000 entities takes 0.3 GiB."""

MODEL_COPIES = 2
"""Bytes in memory for each that a language model has in the bundle, where it may be stored in 16 bits."""


@dataclass(frozen=True)
class Wish:
    """What a command wants of the pools.

    Args:
        workers: actors of each pool; None: as many as the nodes have room for.
        gpu: share of a GPU, or whole GPUs, of an actor with a language model; None: a whole one, or the share
            with which every pool has an actor, where the cluster has GPUs.
        model_bytes: what a language model takes in memory.
        tensor_parallel: processes of an actor over which its language model is split, each with a GPU.
    """

    workers: int | None = None
    gpu: float | None = None
    model_bytes: int = 0
    tensor_parallel: int = 1


@dataclass(frozen=True)
class Pool:
    """The places of a pool's stages, its actors, and the cores and GPUs of each; the last one also writes."""

    places: tuple[int, ...]
    actors: int
    cpus: float
    gpus: float = 0


def model_bytes(bundle: Bundle) -> int:
    """Return what a bundle's language model takes in memory, about."""
    stored = (entry.size for name, entry in bundle.manifest.files.items() if name.startswith("lm/"))
    return MODEL_COPIES * sum(stored)


def pools_of(chain: Chain, nodes: Sequence[Node], wish: Wish, parts: int) -> list[Pool]:
    """Return the pools of a chain, in order.

    Each pool is large enough to use all cores by itself: which of them has work changes with the queries, and
    an actor without any only takes memory. Where they are several, each actor claims a share of its cores.

    Args:
        chain: of the stages.
        nodes: of the cluster.
        wish: of the command.
        parts: of the output that are to be made; a pool has no more actors.

    Raises:
        UserError: the GPUs do not suffice; says for how many.
    """
    stages = [[chain.stages[place] for place in places] for places in chain.pools]
    with_model = [any(stage.language_model for stage in some) for some in stages]
    share = _gpu_share(nodes, wish, sum(with_model))
    cpus = [
        max(stage.num_cpus for stage in some) * (wish.tensor_parallel if model else 1)
        for some, model in zip(stages, with_model, strict=True)
    ]
    gpus = [
        max(share if model else 0.0, *(stage.num_gpus for stage in some))
        for some, model in zip(stages, with_model, strict=True)
    ]
    workers = min(wish.workers or max(1, room(nodes, 1)), parts)
    if not wish.workers:
        workers = _actors_in_memory(nodes, len(stages) * ACTOR_BYTES, workers)
    actors = [workers] * len(stages)
    for place, (model, each) in enumerate(zip(with_model, gpus, strict=True)):
        if each:
            actors[place] = _actors_on_gpus(nodes, wish, workers, each, max(1, sum(map(bool, gpus))))
        elif model and not wish.workers:
            actors[place] = max(1, workers // wish.tensor_parallel)
            if wish.model_bytes:
                needed = wish.model_bytes * sum(with_model)
                actors[place] = _actors_in_memory(nodes, needed, actors[place])
    scale = cpu_scale(list(zip(cpus, actors, strict=True)), nodes)
    found = zip(chain.pools, actors, cpus, gpus, strict=True)
    return [Pool(places, n, each * scale, own) for places, n, each, own in found]


def _gpu_share(nodes: Sequence[Node], wish: Wish, pools: int) -> float:
    """Return the GPUs of an actor with a language model.

    Raises:
        UserError: more are wanted than a node has.
    """
    there = sum(node.gpus for node in nodes)
    if not pools or wish.gpu == 0 or (wish.gpu is None and there < 1):
        return 0
    if wish.tensor_parallel > 1:
        if not room(nodes, 0, wish.tensor_parallel):
            raise UserError(
                f"--tensor-parallel {wish.tensor_parallel}: no node has a GPU for each process "
                f"({describe(nodes)}); give fewer, or --gpu 0 to compute on the cores"
            )
        return wish.tensor_parallel
    if wish.gpu is None:
        return 1 if there >= pools else 1 / math.ceil(pools / there)
    if not room(nodes, 0, wish.gpu):
        raise UserError(f"--gpu {wish.gpu:g}: no node has so many GPUs ({describe(nodes)}); leave it out")
    return wish.gpu


def _actors_on_gpus(nodes: Sequence[Node], wish: Wish, workers: int, each: float, pools: int) -> int:
    """Return the actors of one of some pools that share the GPUs evenly.

    Raises:
        UserError: none fits, or fewer than --workers asks for.
    """
    most = room(nodes, 0, each)
    option, smaller = f"--gpu {each:g}", "a smaller share"
    if wish.tensor_parallel > 1:
        option, smaller = f"--tensor-parallel {wish.tensor_parallel}", "a smaller number"
    if most < pools:
        raise UserError(
            f"{option}: {pools} pools of actors need so many GPUs each, and {most} fit on this cluster "
            f"({describe(nodes)}); give {smaller}"
        )
    if wish.workers and most // pools < workers:
        raise UserError(
            f"--workers {wish.workers}: each needs {each:g} GPU, and {most // pools} fit on this cluster "
            f"({describe(nodes)}); take fewer, or {smaller} by {option.split()[0]}"
        )
    return min(workers, most // pools)


def _actors_in_memory(nodes: Sequence[Node], needed: int, workers: int) -> int:
    """Return how many actors find memory for their models; at least 1, whatever Ray knows of the memory."""
    if not all(node.memory for node in nodes):
        return workers
    return max(1, min(workers, sum(int(node.memory // needed) for node in nodes)))


def cpu_scale(sizes: Sequence[tuple[float, int]], nodes: Sequence[Node]) -> float:
    """Return what share of its cores an actor may claim so that all pools start. Its cores lie on one node.

    Args:
        sizes: of each pool the cores of an actor, and how many actors.
        nodes: of the cluster.
    """
    # A tenth is room for Ray Data's own small tasks. Rounded down to what Ray resolves.
    usable = [replace(node, cpus=0.9 * node.cpus) for node in nodes]
    wanted = [cpus for cpus, actors in sizes for _ in range(actors)]
    thousandths = min(1000, int(1000 * sum(node.cpus for node in usable) / sum(wanted)))
    while thousandths > 1 and not fits(usable, [thousandths / 1000 * size for size in wanted]):
        thousandths = int(thousandths * 0.95)
    return max(1, thousandths) / 1000
