"""Serve a workspace's bundle over HTTP: ``seedset serve --workspace W``."""

from __future__ import annotations

import engine  # noqa: F401  first: it says what is missing where the client alone is installed

# isort: split
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel

from cluster.commandline import Action, command, wait_until_stopped
from cluster.methods import LIST_METHODS
from cluster.options import CommandSettings, Former, Group, declared
from cluster.session import quiet_environment, session, without_lines
from engine.errors import UserError
from serve.operations.deploy_file import Http, check_deploy_file, deploy_config, open_to_all
from serve.settings import HOST, NAME, PORT, RENAMED_SETTINGS, Autoscaling, ServeSettings, StageSettings

if TYPE_CHECKING:  # at run time Ray is imported once its environment is set
    from ray.serve import Application
    from ray.serve.schema import LoggingConfig

EXAMPLES = """
  seedset serve --workspace demo-workspace/workspace
  seedset serve --workspace s3://bucket/prefix --port 8080 --replicas 4
  seedset serve --workspace work --per-stage --gpu 0.5 --set max_wait_s=2
  seedset serve --workspace work --per-stage --tensor-parallel 2
  seedset serve --workspace work --methods retexpan,my_module:PIPELINE --set SegmentRerank.length=8
  seedset serve --workspace work --settings serve-settings.yaml
  seedset serve --workspace work --print-config > serve.yaml
  seedset serve --check-config serve.yaml && serve deploy serve.yaml
"""

SERVE_HEADINGS = {
    "What is served": ("workspace", "bundle", "methods", "set", "bundle_poll_interval_s", "sets", "overlay"),
    "Deployments": (
        "fused",
        "replicas",
        "num_cpus",
        "gpu",
        "tensor_parallel",
        "index_shards",
        "ingress_replicas",
        "batch_wait_ms",
    ),
    "Limits": (
        "max_queued",
        "max_wait_s",
        "timeout_s",
        "drain_timeout_s",
        "body_timeout_s",
        "max_body_bytes",
    ),
    "Address": ("allowed_hosts", "allowed_origins", "token_file"),
    "Watching": ("trace_endpoint", "audit", "audit_file_bytes", "audit_files"),
    "Limits of a caller": ("max_queries", "max_top_k", "rate_per_minute", "burst"),
}
"""Headings of the options, and the fields of the application's settings under each."""

END_NOTES = rb"ServeController\.(graceful_shutdown|listen_for_change) failed"
"""Serve's controller ends itself while it answers this, and those that wait for news of it: Ray reports both
as failures whenever Serve ends."""

SERVE_LOGS = "See logs/serve in Ray's session folder, /tmp/ray/session_latest"

READY_S = 60.0
"""Time for every stage to answer once its replicas run."""


class RunSettings(CommandSettings):
    """The settings of the command: the application's settings, and where it listens."""

    application: Annotated[ServeSettings, Group(flags={"fused": "--fused/--per-stage"})]
    host: str = declared(Http, "host")
    port: int = declared(Http, "port")

    def unused(self) -> dict[str, str]:
        """Return the options that the service asked for does without, and why."""
        of = self.application
        found = {} if of.rate_per_minute else {"burst": "without --rate-per-minute"}
        if of.audit is None:
            found |= dict.fromkeys(("audit_file_bytes", "audit_files"), "without --audit")
        return found if of.bundle is None else found | {"bundle_poll_interval_s": "beside --bundle"}


def _print_settings() -> None:
    print("\n".join(explained(ServeSettings)))


def _check_config(file: Path) -> None:
    applications, warning = check_deploy_file(file)
    for one in applications:
        print(f"{file}: well-formed; serves {one.workspace}")
    if warning:
        print(f"WARNING: {warning}")


@command(
    EXAMPLES,
    headings={
        **dict.fromkeys(("host", "port"), "Address"),
        **{f"application.{name}": heading for heading, names in SERVE_HEADINGS.items() for name in names},
    },
    former={key: Former(now) for key, now in RENAMED_SETTINGS.items()},
    file_flags=["--settings", "--config"],
    printed=lambda told: deploy_config(told.application, told.host, told.port),
    print_help="Print a file for `serve deploy` instead.",
    actions=[
        Action("--print-settings", "Explain every setting instead.", _print_settings),
        Action(
            "--check-config",
            "Check a file for `serve deploy` instead; needs no cluster.",
            _check_config,
            takes_path=True,
        ),
        LIST_METHODS,
    ],
)
def main(settings: RunSettings) -> None:
    """Serve expansions and the web page over HTTP until Ctrl-C, on RAY_ADDRESS or on this machine."""
    from serve.http.tokens import TokenSources
    from serve.operations.running import drain

    application, host = settings.application, settings.host
    closed = bool(TokenSources.of(application).built)
    with served(application, host, settings.port) as url:
        print(_greeting(url, closed), flush=True)
        if not closed and (warning := open_to_all(host, [application])):
            print(f"WARNING: {warning}")
        stopped_again = wait_until_stopped()
        print("stopping: requests under way are answered first (again: at once)", flush=True)
        drain(application.drain_timeout_s, stopped_again)


@contextmanager
def served(settings: ServeSettings, host: str = HOST, port: int = PORT) -> Iterator[str]:
    """Serve while the block runs; yields the address. Starts a cluster here if there is none.

    Raises:
        BundleError: there is nothing to serve.
        UserError: the port is taken, or is not that of a Serve that runs on the cluster; a method or a stage
            that cannot be served.
    """
    from serve.proxy.install import CALLBACK, VARIABLE

    quiet_environment()
    os.environ.setdefault(VARIABLE, CALLBACK)
    import ray
    from ray import serve
    from ray.serve.schema import LoggingConfig

    from serve.app import assemble, prepare
    from serve.operations.running import end_application, running_serve

    prepared = prepare(settings)
    own_cluster = not os.environ.get("RAY_ADDRESS") and not ray.is_initialized()
    if own_cluster:
        _check_port(host, port)
    quiet = LoggingConfig(log_level="WARNING", enable_access_log=False)
    # A cluster of our own gets the cores that the replicas reserve, be they there or not: a
    # deployment that waits for a core that never comes would hang.
    # Serve tells every step of its own, also that the instance that was started here is there already.
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ExitStack() as ending, session(cpus=max(os.cpu_count() or 1, prepared.cpus)):
        if (found := running_serve()) is not None:
            found.check_joinable(host, port)
        elif not own_cluster:
            _check_port(host, port)
        try:
            serve.start(http_options=serve.HTTPOptions(host=host, port=port), logging_config=quiet)
            _deploy(assemble(prepared), quiet)
            url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
            _wait_until_ready(url)
            yield url
        finally:
            ending.enter_context(without_lines(END_NOTES, descriptor=1))  # until Ray has ended, too
            end_application(started_serve=found is None)


def _wait_until_ready(url: str) -> None:
    """Wait until every stage answers.

    Raises:
        UserError: one says why it cannot, or does not in time.
    """
    import httpx

    end = time.monotonic() + READY_S
    told: dict[str, str] = {}
    while time.monotonic() < end:
        answer = httpx.get(f"{url}/readyz", timeout=30, trust_env=False)  # our own: through no proxy
        if answer.status_code == 200:
            return
        told = {name: why for name, why in answer.json()["stages"].items() if why != "ok"}
        time.sleep(0.5)
    why = "; ".join(f"{name}: {why}" for name, why in told.items()) or "the service is not ready"
    raise UserError(f"{why}. {SERVE_LOGS}")


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
        raise UserError(f"{error} {SERVE_LOGS}") from None


def _check_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UserError(f"{host}:{port}: {error.strerror}; choose another --port") from None


def _greeting(url: str, closed: bool) -> str:
    body = '{"positive": ["NAME"], "negative": [], "top_k": 10}'
    token = " -H 'authorization: Bearer TOKEN'" if closed else ""
    return (
        f"serving at {url} (Ctrl-C stops): open it in a browser, or\n"
        f"  curl -s{token} '{url}/v1/entities?search=a'\n"
        f"  curl -s{token} {url}/v1/expand -H 'content-type: application/json' -d '{body}'"
    )


if __name__ == "__main__":
    main.run()
