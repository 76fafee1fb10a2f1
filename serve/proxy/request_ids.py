"""Give each request one id, in Serve's HTTP proxies. An ASGI middleware.

Serve's own takes what the caller sent as it is, and adds it to the answer beside the application's.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.heads import request_id_of, with_request_id


class RequestIds:
    """A middleware that hands on a checked id, and lets one id and no other into the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        scope["headers"] = with_request_id(scope["headers"], request_id)

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = with_request_id(message.get("headers", ()), request_id)
            await send(message)

        await self._app(scope, receive, noted)
