"""Serves a workspace's bundle over HTTP: ``python -m serve.run --workspace W``."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import httpx
import typer
from pydantic import BaseModel

from cluster.commandline import run_app
from cluster.session import quiet_environment, session
from engine.errors import UserError
from serve.operations.deploy_file import (
    check_deploy_file,
    deploy_config,
    merged,
    nested,
    read_settings,
    settings_of,
)
from serve.proxy.install import CALLBACK, VARIABLE
from serve.settings import NAME, Autoscaling, ServeSettings, StageSettings

if TYPE_CHECKING:  # at run time Ray is imported once its environment is set
    from ray.serve import Application
    from ray.serve.schema import LoggingConfig

EXAMPLES = """\b
Examples:
  python -m serve.run --workspace demo-workspace
  python -m serve.run --workspace s3://bucket/prefix --port 8080 --replicas 4
  python -m serve.run --workspace W --per-stage --set stages.Generate.num_gpus=1 --set max_wait_s=2
  python -m serve.run --workspace W --settings serve-settings.yaml
  python -m serve.run --workspace W --print-config > serve.yaml
  python -m serve.run --check-config serve.yaml && serve deploy serve.yaml
"""

LOOPBACK = ("127.0.0.1", "localhost", "::1")

READY_S = 60.0
"""Time for every stage to answer once its replicas run."""

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command(epilog=EXAMPLES)
def main(
    workspace: Annotated[
        str | None, typer.Option(help="Folder or s3:// prefix with bundles; needed here or in --settings.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets other machines in: set tokens first.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle id, for good; default: always the current one.")
    ] = None,
    methods: Annotated[str | None, typer.Option(help="a,b; default: all the bundle can do.")] = None,
    per_stage: Annotated[bool, typer.Option("--per-stage", help="A deployment for each stage.")] = False,
    replicas: Annotated[
        int | None, typer.Option(help="Replicas of each stage deployment.  [default: 1]")
    ] = None,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting, as key=value or a.b=value.")
    ] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", help="YAML file of settings; options count more.")
    ] = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print a file for `serve deploy` instead.")
    ] = False,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Explain every setting instead.")
    ] = False,
    check_config: Annotated[
        Path | None, typer.Option(help="Check a file for `serve deploy` instead; needs no cluster.")
    ] = None,
) -> None:
    """Serve expansions and the web page over HTTP until Ctrl-C, on RAY_ADDRESS or on this machine."""
    if print_settings:
        print("\n".join(explained(ServeSettings)))
        return
    if check_config:
        for one in check_deploy_file(check_config):
            print(f"{check_config}: well-formed; serves {one.workspace}")
        return
    given: dict[str, Any] = {
        "workspace": workspace,
        "bundle": bundle,
        "methods": methods,
        "replicas": replicas,
    }
    given = {key: value for key, value in given.items() if value is not None} | (
        {"fused": False} if per_stage else {}
    )
    base = read_settings(settings_file) if settings_file else {}
    settings = settings_of(merged(merged(base, nested(setting or [])), given), "settings")
    if print_config:
        print(deploy_config(settings, host, port), end="")
        return
    with served(settings, host, port) as url:
        print(_greeting(url, settings), flush=True)
        if host not in LOOPBACK and not settings.tokens:
            print(
                f"WARNING: {host} lets in everybody who reaches this machine; set tokens "
                "(python -m serve.operations.token)"
            )
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
        UserError: the port is taken; a method or a stage that cannot be served.
    """
    quiet_environment()
    os.environ.setdefault(VARIABLE, CALLBACK)
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
            url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
            _wait_until_ready(url)
            yield url
        finally:
            serve.shutdown()


def _wait_until_ready(url: str) -> None:
    """Wait until every stage answers.

    Raises:
        UserError: one says why it cannot, or does not in time.
    """
    end = time.monotonic() + READY_S
    told: dict[str, str] = {}
    while time.monotonic() < end:
        answer = httpx.get(f"{url}/readyz", timeout=30)
        if answer.status_code == 200:
            return
        told = {name: why for name, why in answer.json()["stages"].items() if why != "ok"}
        time.sleep(0.5)
    raise UserError("; ".join(f"{name}: {why}" for name, why in told.items()) or "the service is not ready")


def explained(model: type[BaseModel], indent: str = "") -> list[str]:
    """Return a line for each setting: its name, type, default, and what it is."""
    lines = []
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else repr(field.default)
        lines.append(
            f"{indent}{name} = {default}" + (f"  ({field.description})" if field.description else "")
        )
        if name == "stages":
            lines += explained(StageSettings, f"{indent}  NAME.")
        if name == "autoscaling":
            lines += explained(Autoscaling, f"{indent}autoscaling.")
    return lines


def _deploy(application: Application, logging_config: LoggingConfig) -> None:
    from ray import serve

    try:
        serve.run(application, name=NAME, route_prefix="/", logging_config=logging_config)
    except RuntimeError as error:
        # Ray's text names the deployment; why its replicas die is in their logs only.
        raise UserError(f"{error} See logs/serve in Ray's session folder, /tmp/ray/session_latest") from None


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host}:{port}: {error.strerror}; choose another --port") from None


def _greeting(url: str, settings: ServeSettings) -> str:
    body = '{"positive": ["NAME"], "negative": [], "top_k": 10}'
    token = " -H 'authorization: Bearer TOKEN'" if settings.tokens else ""
    return (
        f"serving at {url} (Ctrl-C stops): open it in a browser, or\n"
        f"  curl -s{token} '{url}/v1/entities?prefix=a'\n"
        f"  curl -s{token} {url}/v1/expand -H 'content-type: application/json' -d '{body}'"
    )


if __name__ == "__main__":
    run_app(app)
