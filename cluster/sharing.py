"""Check that every node of a cluster sees a folder, before work is spread over them.

A node with a folder of its own under the same path takes its share of the work, writes it there, and ends
with success; what it made is missing on the others.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterable
from pathlib import Path

from engine.errors import UserError

ANSWER_SECONDS = 120
"""Time that a node has to start a worker and look."""


def check_shared(folders: Iterable[str]) -> None:
    """Check that each node of the connected cluster sees the same local folders as this process.

    A file is written into each folder, looked for by every node, and removed. Buckets are not looked at: all
    nodes reach the same ones, or fail.

    Args:
        folders: addresses; those with a scheme (``s3://``) are left out.

    Raises:
        UserError: names the folder and the nodes that do not see it.
    """
    local = sorted({folder for folder in folders if "://" not in folder})
    others = _other_nodes() if local else {}
    for folder in local if others else ():
        Path(folder).mkdir(parents=True, exist_ok=True)
        # A dot in front: what reads the folder passes hidden files over.
        marker = Path(folder) / f".seen-by-every-node-{uuid.uuid4().hex}"
        marker.write_text(socket.gethostname())
        try:
            blind = _nodes_without(marker, others)
        finally:
            marker.unlink(missing_ok=True)
        if blind:
            raise UserError(
                f"{folder}: {', '.join(blind)} of this cluster cannot see this folder (there is none, or "
                "another one under this path, or it does not answer); put it on a disk that all nodes share, "
                "or in a bucket (s3://bucket/prefix), or work on this machine alone, without RAY_ADDRESS"
            )


def _other_nodes() -> dict[str, str]:
    """Return the addresses of the living nodes but this process' own, by their ids."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes if node["Resources"].get("CPU")}


def _is_there(path: str) -> bool:
    return os.path.exists(path)


def _nodes_without(marker: Path, nodes: dict[str, str]) -> list[str]:
    """Return the addresses of the nodes that do not find a file."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    look = ray.remote(num_cpus=0, max_retries=0)(_is_there)
    asked = {
        look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            str(marker)
        ): address
        for node, address in nodes.items()
    }
    done, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_SECONDS)
    blind = []
    for answer in done:
        try:
            seen = ray.get(answer)
        except ray.exceptions.RayError:  # it went away meanwhile: no work goes there
            continue
        if not seen:
            blind.append(asked[answer])
    return sorted([*blind, *(asked[answer] for answer in silent)])
