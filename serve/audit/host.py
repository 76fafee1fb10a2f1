"""Deploy the audit log: one replica has its file open, and every ingress sends it what it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ray.serve.handle import DeploymentHandle

from engine.errors import UserError
from serve.audit.entries import Json, Wanted
from serve.audit.recorder import LocalAudit
from serve.errors import UnavailableError, unwrapped
from serve.graph.dispatch import LOST
from serve.settings import ServeSettings
from serve.telemetry.logs import configure_logs

AUDIT = "Audit"
"""The deployment's name."""

WRITE_S, READ_S = 10.0, 60.0
"""Seconds for a batch, and for a search through all files."""


class AuditHost:
    """The replica that has the audit log open.

    Args:
        settings: with ``audit``, a file on the disk of the cluster's head, and its limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        configure_logs()
        self._audit = LocalAudit(settings)

    async def write(self, lines: Sequence[bytes], dropped: int) -> int:
        """Append lines (:class:`~serve.audit.recorder.Audit`)."""
        return await self._audit.write(lines, dropped)

    async def read(self, wanted: Wanted) -> Json:
        """Return entries (:class:`~serve.audit.recorder.Audit`)."""
        return await self._audit.read(wanted)


class HandleAudit:
    """The audit log behind a handle of :class:`AuditHost`."""

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle

    async def write(self, lines: Sequence[bytes], dropped: int) -> int:
        """Append lines (:class:`~serve.audit.recorder.Audit`)."""
        try:
            async with asyncio.timeout(WRITE_S):
                return int(await self._handle.write.remote(lines, dropped))
        except (TimeoutError, *LOST) as error:
            raise _away(error) from None

    async def read(self, wanted: Wanted) -> Json:
        """Return entries (:class:`~serve.audit.recorder.Audit`)."""
        try:
            async with asyncio.timeout(READ_S):
                found: Json = await self._handle.read.remote(wanted)
                return found
        except (TimeoutError, *LOST) as error:
            raise _away(error) from None
        except Exception as error:
            cause = unwrapped(error)
            raise (cause if isinstance(cause, UserError) else error) from None


def _away(error: BaseException) -> UnavailableError:
    return UnavailableError(f"the audit log cannot be reached now ({type(error).__name__}); try again")
