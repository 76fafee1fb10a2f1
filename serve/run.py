"""Serves a workspace's bundle over HTTP: ``python -m serve.run --workspace W``."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from pydantic import ValidationError

from cluster.commandline import run_app
from cluster.session import quiet_environment, session
from engine.errors import UserError
from serve.errors import in_words
from serve.settings import NAME, ServeSettings

if TYPE_CHECKING:  # at run time Ray is imported once its environment is set
    from ray.serve import Application
    from ray.serve.schema import LoggingConfig

EXAMPLES = """\b
Examples:
  python -m serve.run --workspace demo-workspace
  python -m serve.run --workspace s3://bucket/prefix --port 8080 --replicas 4
  python -m serve.run --workspace W --per-stage --set timeout_s=5 --set max_top_k=200
  python -m serve.run --workspace W --print-config > serve.yaml && serve deploy serve.yaml
"""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def main(
    workspace: Annotated[str, typer.Option(help="Folder or s3:// prefix with bundles.")],
    host: Annotated[str, typer.Option(help="0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    bundle: Annotated[str | None, typer.Option(help="Bundle id; default: the current one.")] = None,
    methods: Annotated[str, typer.Option(help="a,b; default: all the bundle can do.")] = "",
    per_stage: Annotated[bool, typer.Option(help="A deployment for each stage.")] = False,
    replicas: Annotated[int, typer.Option(help="Replicas of each stage deployment.")] = 1,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as key=value.")
    ] = None,
    print_config: Annotated[bool, typer.Option(help="Print a file for `serve deploy` instead.")] = False,
) -> None:
    """Serve expansions over HTTP until Ctrl-C, on RAY_ADDRESS or on this machine."""
    given: dict[str, object] = {"workspace": workspace, "bundle": bundle, "methods": methods}
    given |= {"fused": not per_stage, "replicas": replicas}
    given |= dict(_pair(text) for text in setting or [])
    try:
        settings = ServeSettings.model_validate(given)
    except ValidationError as error:
        raise UserError(f"settings: {in_words(error.errors())}") from None
    if print_config:
        print(deploy_config(settings, host, port), end="")
        return
    with served(settings, host, port) as url:
        print(_greeting(url), flush=True)
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        stop.wait()
        print("stopping", flush=True)


@contextmanager
def served(settings: ServeSettings, host: str = "127.0.0.1", port: int = 8000) -> Iterator[str]:
    """Serve while the block runs; yields the address. Starts a cluster here if there is none.

    Raises:
        BundleError: there is nothing to serve.
        UserError: the port is taken; a method that cannot be served.
    """
    quiet_environment()
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serve.app import assemble, prepare

    prepared = prepare(settings)
    _check_port(host, port)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    # A cluster of our own gets the cores that the replicas reserve, be they there or not: a
    # deployment that waits for a core that never comes would hang.
    with session(cpus=max(os.cpu_count() or 1, prepared.cpus)):
        serve.start(http_options=serve.HTTPOptions(host=host, port=port), logging_config=quiet)
        try:
            _deploy(assemble(prepared), quiet)
            yield f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
        finally:
            serve.shutdown()


def deploy_config(settings: ServeSettings, host: str, port: int) -> str:
    """Return the YAML that ``serve deploy`` takes: for a cluster that outlives this process."""
    application = {
        "name": NAME,
        "route_prefix": "/",
        "import_path": "serve.app:build",
        "args": settings.model_dump(mode="json", exclude_unset=True),
    }
    config = {"http_options": {"host": host, "port": port}, "applications": [application]}
    return str(yaml.safe_dump(config, sort_keys=False))


def _deploy(application: Application, logging_config: LoggingConfig) -> None:
    from ray import serve

    try:
        serve.run(application, name=NAME, route_prefix="/", logging_config=logging_config)
    except RuntimeError as error:
        # Ray's text names the deployment; why its replicas die is in their logs only.
        raise UserError(f"{error} See logs/serve in Ray's session folder, /tmp/ray/session_latest") from None


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"--set {text}: write key=value")
    return key, value


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host}:{port}: {error.strerror}; choose another --port") from None


def _greeting(url: str) -> str:
    body = '{"positive": ["NAME"], "negative": [], "top_k": 10}'
    return (
        f"serving at {url} (Ctrl-C stops)\n"
        f"  curl -s '{url}/v1/entities?prefix=a'\n"
        f"  curl -s {url}/v1/expand -H 'content-type: application/json' -d '{body}'"
    )


if __name__ == "__main__":
    run_app(app)
