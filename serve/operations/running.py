"""Join a Serve that runs on the cluster already; let an application's requests end, and end it alone."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import UserError
from serve.settings import NAME

logger = logging.getLogger("seedset.serve")

INGRESS = "Ingress"
"""Name of the deployment that takes requests."""

ASK_S = 5.0
"""Seconds for the replicas of the ingress to say how many requests are under way."""
PAUSE_S = 0.1
DELIVERY_S = 0.3
"""Seconds for the proxies to hand on the last answers."""


@dataclass(frozen=True)
class RunningServe:
    """Serve as it runs on a cluster: one address for all applications, and their paths by name."""

    host: str | None
    port: int | None
    paths: Mapping[str, str]

    def check_joinable(self, host: str, port: int) -> None:
        """Check that one more application can be served there as it is wanted.

        Raises:
            UserError: Serve listens elsewhere, or another application has the name or the path.
        """
        if port != self.port:
            raise UserError(
                f"--port {port}: Serve runs on this cluster already and listens at port {self.port}, for all "
                f"applications; give --port {self.port}, or a cluster of its own (without RAY_ADDRESS)"
            )
        if host != self.host:
            raise UserError(
                f"--host {host}: Serve runs on this cluster already and listens at {self.host}, for all "
                f"applications; give --host {self.host}, or a cluster of its own (without RAY_ADDRESS)"
            )
        if NAME in self.paths:
            raise UserError(
                f"an application {NAME!r} is served on this cluster already; end it: serve delete {NAME}"
            )
        if taken := [name for name, path in self.paths.items() if path == "/"]:
            raise UserError(
                f"the application {taken[0]!r} has the path / on this cluster; write a file with another "
                "`route_prefix` (--print-config) for `serve deploy`, or give a cluster of its own"
            )


def running_serve() -> RunningServe | None:
    """Return what Serve is on the connected cluster; None where it does not run."""
    from ray.serve.context import _get_global_client

    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    details: dict[str, Any] = client.get_serve_details()
    paths = {name: app.get("route_prefix") or "" for name, app in details.get("applications", {}).items()}
    return RunningServe(client.http_config.host, client.http_config.port, paths)


def drain(bound_s: float, given_up: Callable[[], bool] = lambda: False) -> None:
    """Let the application refuse new requests, and wait until those under way have ended.

    Args:
        bound_s: seconds to wait at most.
        given_up: says whether to wait no longer.
    """
    from ray import serve

    end = time.monotonic() + bound_s
    try:
        ingress = serve.get_deployment_handle(INGRESS, NAME)
        while True:
            left = ingress.broadcast("drain").results(timeout_s=ASK_S, return_exceptions=True)
            under_way = sum(n for n in left if isinstance(n, int))
            if not under_way:
                break
            if time.monotonic() > end or given_up():
                logger.warning("%d requests under way have not ended and are cut off", under_way)
                return
            time.sleep(PAUSE_S)
    except Exception as error:  # Ray's of many kinds: whatever it is, the application must still be ended
        logger.warning("the requests under way could not be waited for: %s", type(error).__name__)
        return
    time.sleep(DELIVERY_S)


def end_application(started_serve: bool) -> None:
    """End the application, and Serve only where it was started for it and serves nothing else."""
    from ray import serve

    found = running_serve()
    if found is None:
        return
    if started_serve and not set(found.paths) - {NAME}:
        serve.shutdown()
        return
    if NAME not in found.paths:
        return
    try:
        serve.delete(NAME)
    except TimeoutError:
        logger.warning("the application %s is still ending on the cluster", NAME)
