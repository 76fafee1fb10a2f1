"""Deploy the store of named sets: one replica has the file open, and every ingress asks it."""

from __future__ import annotations

from ray.serve.handle import DeploymentHandle

from serve.graph.store_host import StoreHandle, StoreHost
from serve.sets.reviews import ReviewStore

SETS = "Sets"
"""The deployment's name."""


class SetsHost(StoreHost):
    """The replica that has the file of the sets open.

    Args:
        path: of the file, on the disk of the cluster's head.
    """

    async def __init__(self, path: str) -> None:  # type: ignore[misc]  # Serve awaits it
        await super().__init__(ReviewStore, path)


class HandleSets(StoreHandle):
    """The store behind a handle of :class:`SetsHost`.

    Nothing is sent again: a change that was written before its replica was lost would be refused as made
    of an older version. Who sent it sends it again with its key.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        super().__init__(handle, "the sets")
