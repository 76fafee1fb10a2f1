"""Serve a graph that computes nothing: what Ray Serve itself takes.

Its ingress is made as ours is: an ASGI application that reads a body, awaits so many deployments one after
the other, and answers. It is deployed beside the real one, so that both are measured in the same minutes
on the same cluster.

    python -m benchmarks.empty_graph --workspace W --port 8200

serves both until it is told to stop: ``/v1/expand``, and ``POST /empty/2`` for two hops.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from fastapi import FastAPI, Request, Response

from cluster.settings_file import nested
from jobs import console
from serve.operations.deploy_file import settings_of
from serve.run import served

if TYPE_CHECKING:  # at run time Ray is imported once its environment is set
    from ray.serve import Application

PREFIX = "/empty"
HOPS = 3
"""The most stages that a method has."""

CONSTANT = b"{}"


class Echo:
    """A stage that returns what it is given."""

    async def run(self, given: bytes) -> bytes:
        """Return the argument."""
        return given


class EmptyIngress:
    """Leads a request through the echoes."""

    def __init__(self, handles: Sequence[Any]) -> None:
        self._handles = handles

    def __serve_build_asgi_app__(self) -> FastAPI:
        app = FastAPI()

        @app.post("/{hops}", response_model=None)
        async def ask(request: Request, hops: int) -> Response:
            await request.body()
            for handle in self._handles[:hops]:
                await handle.run.remote(CONSTANT)
            return Response(CONSTANT, media_type="application/json")

        return app


def empty_graph(hops: int = HOPS) -> Application:
    """Return the application. It reserves no cores: those that there are belong to the real one."""
    from ray import serve

    from serve.app import AT_ONCE

    def bound(name: str, made: Any, *arguments: Any) -> Application:
        none = {"num_cpus": 0}
        deployment = serve.deployment(name=name, max_ongoing_requests=AT_ONCE, ray_actor_options=none)(made)
        application: Application = deployment.bind(*arguments)
        return application

    echoes = [bound(f"Echo-{number + 1}", Echo) for number in range(hops)]
    return bound("Ingress", serve.ingress()(EmptyIngress), echoes)


def main(
    workspace: Annotated[str, typer.Option(help="Folder with bundles.")],
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8200,
    methods: Annotated[str, typer.Option(help="a,b; default: all the bundle can do.")] = "",
    per_stage: Annotated[bool, typer.Option(help="A deployment for each stage.")] = False,
    setting: Annotated[list[str] | None, typer.Option("--set", help="As python -m serve.run takes.")] = None,
) -> None:
    """Serve a bundle, and the empty graph beside it."""
    given = {"workspace": workspace, "methods": methods, "fused": not per_stage} | nested(setting or [])
    with served(settings_of(given, "settings"), port=port) as url:
        from ray import serve

        serve.run(empty_graph(), name="empty", route_prefix=PREFIX)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        print(f"serving at {url}", flush=True)
        stop.wait()


if __name__ == "__main__":
    console.run(main, "python -m benchmarks.empty_graph --workspace W --per-stage")
