"""A pool of actors on Ray Data that works through a list of items, one item a call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def pooled(
    items: Sequence[Mapping[str, Any]],
    actor: type,
    arguments: tuple[Any, ...],
    workers: int | None = None,
    gpu: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield the rows that ``actor(*arguments)`` makes of each item, in the order in which they finish.

    Args:
        items: plain values; an actor gets one as a batch of one row.
        actor: a class of an importable module, called with a batch.
        arguments: of its constructor.
        workers: size of the pool; default: the CPUs of the cluster, or its GPUs if those are used.
        gpu: give each actor a GPU if the cluster has any.
    """
    import ray

    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0)) if gpu else 0
    size = min(workers or gpus or int(resources.get("CPU", 1)), len(items))
    if not size:
        return
    data = ray.data.from_items(list(items), override_num_blocks=len(items))
    pool = data.map_batches(
        actor,
        fn_constructor_args=arguments,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=size),
        num_cpus=None if gpus else 1,
        num_gpus=1 if gpus else None,
    )
    yield from pool.iter_rows()
