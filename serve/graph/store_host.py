"""Deploy a store that one process has open: one replica on the cluster's head, which others ask."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from ray.serve.handle import DeploymentHandle

from engine.errors import UserError
from serve.errors import UnavailableError, unwrapped
from serve.graph.dispatch import LOST
from serve.stores import Json, LocalStore
from serve.telemetry.logs import configure_logs

T = TypeVar("T")

# The file is on one machine's disk: a replica that came up elsewhere would find nothing, and begin anew.
ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}

ASK_S = 30.0
"""Seconds for an operation, with the wait for those before it."""


class StoreHost:
    """The replica that has a store's file open.

    Args:
        kind: opens the store, given its path.
        path: of the file, on the disk of the cluster's head.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, kind: Callable[[Path], Any], path: str
    ) -> None:
        configure_logs()
        self._store = LocalStore(kind, Path(path))
        await self._store.open()

    async def do(self, operation: str, given: tuple[Any, ...]) -> Json:
        """Do an operation of the store."""
        return await self._store(operation, *given)


class StoreHandle:
    """A store behind a handle of :class:`StoreHost`. Nothing is sent again here.

    Args:
        handle: of the deployment.
        what: the store holds, for what is said where it cannot be reached.
    """

    def __init__(self, handle: DeploymentHandle, what: str) -> None:
        self._handle, self._what = handle, what

    async def __call__(self, operation: str, *given: Any) -> Json:
        """Do an operation of the store.

        Raises:
            UserError: as the operation.
            UnavailableError: the store does not answer now; whether a change was written is not known.
        """
        found: Json = await answer_in_time(self._handle.do.remote(operation, given), self._what, ASK_S)
        return found


async def answer_in_time(asked: Awaitable[T], what: str, seconds: float) -> T:
    """Return what a deployment of one replica answers.

    Args:
        asked: the call.
        what: it has, for what is said where it cannot be reached.
        seconds: that it may take, with the wait for those before it.

    Raises:
        UserError: as the call.
        UnavailableError: no answer came; whether the call was carried out is not known.
    """
    try:
        async with asyncio.timeout(seconds):
            return await asked
    except (TimeoutError, *LOST) as error:
        raise UnavailableError(f"{what} cannot be reached now ({type(error).__name__}); try again") from None
    except Exception as error:
        cause = unwrapped(error)
        raise (cause if isinstance(cause, UserError) else error) from None
