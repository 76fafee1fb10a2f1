"""Gather what an ingress is asked, and send it to the audit log beside the requests, never within one.

A request adds an entry to a queue of limited length; what is above the limits is counted, not kept. A task
encodes and sends what has come, twice a second.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from serve.audit.entries import Json, Wanted, line_of, now
from serve.audit.log import AuditFile, read_entries
from serve.errors import UnavailableError
from serve.settings import ServeSettings
from serve.telemetry.logs import log_event

logger = logging.getLogger("seedset.serve")

FLUSH_S = 0.5
"""Seconds between two batches: so much is lost with a replica that is killed."""

MAX_ENTRIES = 10_000
MAX_BYTES = 16 << 20
"""Entries, and bytes of their bodies as they were sent, that wait at most."""


class Audit(Protocol):
    """An audit log, wherever it is."""

    async def write(self, lines: Sequence[bytes], dropped: int) -> int:
        """Append lines (:meth:`serve.audit.log.AuditFile.append`).

        Raises:
            UnavailableError: the log does not answer now; whether they were written is not known.
        """
        ...

    async def read(self, wanted: Wanted) -> Json:
        """Return entries (:func:`serve.audit.log.read_entries`)."""
        ...


class LocalAudit:
    """An audit log of this process.

    Args:
        settings: with ``audit``, the file, and its limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        if settings.audit is None:
            raise ValueError("the settings name no audit log")
        self._path = Path(settings.audit).absolute()
        self._file = AuditFile(self._path, settings.audit_file_bytes, settings.audit_files)

    async def write(self, lines: Sequence[bytes], dropped: int) -> int:
        """Append lines, in a thread (:class:`Audit`)."""
        return await asyncio.to_thread(self._file.append, lines, dropped)

    async def read(self, wanted: Wanted) -> Json:
        """Return entries, in a thread (:class:`Audit`)."""
        return await asyncio.to_thread(read_entries, self._path, wanted)


class Recorder:
    """The entries of one ingress that are not yet in the log. Used from one event loop only.

    Args:
        audit: the log.
    """

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._waiting: deque[tuple[Mapping[str, Any], int]] = deque()
        self._bytes = self._dropped = 0
        self._away = False
        self._sending = asyncio.Lock()

    def record(self, entry: Mapping[str, Any], size: int = 0) -> None:
        """Add an entry, with the time, unless too much waits.

        Args:
            entry: what an entry says, of objects that change no more.
            size: bytes of its body as it was sent.
        """
        if len(self._waiting) >= MAX_ENTRIES or (self._waiting and self._bytes + size > MAX_BYTES):
            self._dropped += 1
            return
        self._waiting.append(({"time": now(), **entry}, size))
        self._bytes += size

    async def run(self) -> None:
        """Send what has come, until cancelled; then what is left."""
        try:
            while True:
                await asyncio.sleep(FLUSH_S)
                await self._flush_quietly()
        finally:
            await self._flush_quietly()

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except Exception:  # whatever it is, the service answers on, and the next batch is tried
            logger.exception("the audit log could not be written")

    async def flush(self) -> None:
        """Send all that waits. Where the log is away it waits on, within the limits."""
        async with self._sending:
            if not self._waiting and not self._dropped:
                return
            batch, dropped = list(self._waiting), self._dropped
            self._waiting.clear()
            self._bytes = self._dropped = 0
            lines = await asyncio.to_thread(lambda: [line_of(entry) for entry, _ in batch])
            try:
                await self.audit.write(lines, dropped)
                self._away = False
            except UnavailableError as error:
                self._keep(batch, dropped)
                if not self._away:
                    log_event("the audit log is away", level=logging.WARNING, reason=str(error))
                self._away = True

    def _keep(self, batch: Sequence[tuple[Mapping[str, Any], int]], dropped: int) -> None:
        """Put a batch back before what has come meanwhile; what is too much now is the newest."""
        newer = list(self._waiting)
        self._waiting, self._bytes, self._dropped = deque(), 0, self._dropped + dropped
        for entry, size in [*batch, *newer]:
            if len(self._waiting) >= MAX_ENTRIES or (self._waiting and self._bytes + size > MAX_BYTES):
                self._dropped += 1
            else:
                self._waiting.append((entry, size))
                self._bytes += size
