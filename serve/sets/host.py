"""Deploy the store of named sets: one replica has the file open, and every ingress asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ray.serve.handle import DeploymentHandle

from engine.errors import UserError
from serve.errors import UnavailableError, unwrapped
from serve.graph.dispatch import LOST
from serve.sets.access import LocalSets, Operation
from serve.sets.events import Json
from serve.telemetry.logs import configure_logs

SETS = "Sets"
"""The deployment's name."""

# The file is on one machine's disk: a replica that came up elsewhere would find no sets, and begin anew.
ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}

ASK_S = 30.0
"""Seconds for an operation, with the wait for those before it."""


class SetsHost:
    """The replica that has the file of the sets open.

    Args:
        path: of the file, on the disk of the cluster's head.
    """

    async def __init__(self, path: str) -> None:  # type: ignore[misc]  # Serve awaits it
        configure_logs()
        self._sets = LocalSets(Path(path))
        await self._sets.open()

    async def do(self, operation: Operation, given: tuple[Any, ...]) -> Json:
        """Do an operation (:class:`~serve.sets.access.Sets`)."""
        return await self._sets(operation, *given)


class HandleSets:
    """The store behind a handle of :class:`SetsHost`.

    Nothing is sent again here: a change that was written before its replica was lost would be refused as made
    of an older version. Who sent it sends it again with its key.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def __call__(self, operation: Operation, *given: Any) -> Json:
        """Do an operation (:class:`~serve.sets.access.Sets`)."""
        try:
            async with asyncio.timeout(ASK_S):
                found: Json = await self._handle.do.remote(operation, given)
                return found
        except (TimeoutError, *LOST) as error:
            reason = type(error).__name__
            raise UnavailableError(f"the sets cannot be reached now ({reason}); try again") from None
        except Exception as error:
            cause = unwrapped(error)
            raise (cause if isinstance(cause, UserError) else error) from None
