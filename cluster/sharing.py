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

from cluster.each_node import living_but_own, on_nodes
from engine.errors import UserError


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
    """Return the addresses of the living nodes with cores but this process' own, by their ids."""
    nodes = [node for node in living_but_own() if node["Resources"].get("CPU")]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in nodes}


def _nodes_without(marker: Path, nodes: dict[str, str]) -> list[str]:
    """Return the addresses of the nodes that do not find a file; to those that went away no work goes."""
    answers = on_nodes(os.path.exists, nodes, str(marker))
    blind = [node for node, seen in answers.given.items() if not seen]
    return sorted(nodes[node] for node in (*blind, *answers.silent))
