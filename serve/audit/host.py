"""Deploy the audit log: one replica has its file open, and every ingress sends it what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

from ray.serve.handle import DeploymentHandle

from serve.audit.entries import Json, Wanted
from serve.audit.recorder import LocalAudit
from serve.graph.store_host import answer_in_time
from serve.settings import ServeSettings
from serve.telemetry.logs import configure_logs

AUDIT = "Audit"
"""The deployment's name."""

LOG = "the audit log"

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
        return int(await answer_in_time(self._handle.write.remote(lines, dropped), LOG, WRITE_S))

    async def read(self, wanted: Wanted) -> Json:
        """Return entries (:class:`~serve.audit.recorder.Audit`)."""
        found: Json = await answer_in_time(self._handle.read.remote(wanted), LOG, READ_S)
        return found
