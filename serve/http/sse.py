"""Stream the progress of a query as server-sent events.

FastAPI's own event streams (0.165) are not used: an error found before the first event would come after a
status of 200, they write ``no-cache`` and not ``no-store``, encode on the event loop, do not close their
source where the client leaves while an event waits to be sent, and hold it back behind a slow reader.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serve.http.requests import encode

KEEP_ALIVE_S = 10.0
"""Seconds without an event after which a comment keeps the connection alive."""

Event = tuple[str, Any]
"""An event's name and data."""


class EventStream(Response):
    """The response that writes events as they come; closes their source when the client leaves.

    Args:
        events: taken by one task, to their end or until the client is gone.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        # A proxy that gathers the answer before it passes it on would take the point out of it.
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the response."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
        await send(start)
        async with aclosing(frames(self._events)) as chunks:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def frames(
    events: AsyncGenerator[Event, None], keep_alive_s: float = KEEP_ALIVE_S
) -> AsyncGenerator[bytes, None]:
    """Yield events as they are written on the wire, and comments while nothing happens."""
    queue: asyncio.Queue[bytes | None] = asyncio.Queue()
    # One task takes all steps of the source: what it holds across them (a time limit) belongs to a task.
    pump = asyncio.create_task(_pump(events, queue))
    try:
        while True:
            try:
                async with asyncio.timeout(keep_alive_s):
                    chunk = await queue.get()
            except TimeoutError:
                chunk = b": keep-alive\n\n"
            if chunk is None:
                break
            yield chunk
        await pump  # raises what the source raised
    finally:
        pump.cancel()
        await asyncio.gather(pump, return_exceptions=True)


async def _pump(events: AsyncGenerator[Event, None], queue: asyncio.Queue[bytes | None]) -> None:
    try:
        async with aclosing(events):
            async for name, data in events:
                # JSON holds no line break, so the data is one line.
                queue.put_nowait(b"event: %s\ndata: %s\n\n" % (name.encode(), encode(data)))
    finally:
        queue.put_nowait(None)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
