"""Start several Ray nodes on one machine, with a job server: ``seedset local-cluster --nodes 3``.

For trying out what needs more than one node, and for tests that take one away. The cores of a node
are a number that Ray counts with; nothing holds its processes to it.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from cluster.commandline import command, wait_until_stopped
from cluster.errors import connecting_to_ray
from cluster.options import CommandSettings
from cluster.processes import kill, started_here
from cluster.session import quiet_environment
from engine.errors import UserError

DASHBOARD_PORT = 8265
"""Of Ray, unless something else listens there."""

NODE_STORE_BYTES = 256 << 20

PROXY_CALLBACK = ("RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH", "serve.proxy.install:install")
"""Environment variable and value by which Serve's proxies get our limits, as in ``ray_cluster.yaml``."""

HEALTH_TIMEOUT = ("RAY_health_check_timeout_ms", "60000")
"""A node that answers late, as on a busy machine, is not dead; one whose process ended is known at once."""

TRIES = 3
"""Times that a node is started, if it does not come up."""

SERVERS = ("/raylet/raylet", "/gcs/gcs_server")
"""Programs of a node that end all others of it when they end."""

T = TypeVar("T")

NODES, CPUS_PER_NODE = 3, 1

EXAMPLES = """
  seedset local-cluster --nodes 3
  seedset local-cluster --nodes 2 --cpus-per-node 2
"""


@dataclass
class LocalCluster:
    """A running cluster.

    Args:
        address: what ``RAY_ADDRESS`` takes.
        job_address: what ``ray job submit --address`` takes.
    """

    address: str
    job_address: str
    _cluster: Any
    _node_settings: dict[str, Any]
    _cores: Iterator[set[int] | None] = field(default_factory=lambda: itertools.repeat(None))
    _workers: list[Any] = field(default_factory=list)
    _started: int = 0

    def add_node(self) -> None:
        """Start one more node; to be called from the main thread, where Ray handles signals.

        Nodes of one machine share the session's folder. Each unpacks what a job ships into its own folder in
        it: Ray removes first what it finds there, which a job that began on another node may be running from.
        """
        self._started += 1
        unpacked = f"runtime_resources_{self._started}"
        start = partial(self._cluster.add_node, runtime_env_dir_name=unpacked, **self._node_settings)
        with _held_to(next(self._cores)):
            self._workers.append(_tried(start))

    @property
    def worker_nodes(self) -> int:
        """The number of nodes besides the head."""
        return len(self._workers)

    def kill_node(self, place: int = -1) -> str:
        """Take a worker node away without a goodbye, the youngest if none is named; return which it was.

        Raises:
            IndexError: there is no such one.
        """
        node = self._workers.pop(place)
        self._cluster.remove_node(node, allow_graceful=False)
        return f"node {node.node_id[:8]}"

    @contextmanager
    def connected(self) -> Iterator[None]:
        """Let processes that are started in the block use the cluster, and submit to it."""
        addresses = {"RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.job_address}
        before = {name: os.environ.get(name) for name in addresses}
        os.environ.update(addresses)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def local_cluster(
    nodes: int = NODES, cpus_per_node: int = CPUS_PER_NODE, pinned: bool = False
) -> Iterator[LocalCluster]:
    """Run a cluster of ``nodes`` nodes, the head among them, while the block runs.

    Args:
        nodes: how many.
        cpus_per_node: cores that Ray counts for each.
        pinned: hold the processes of each node to cores of its own, so that a node is no faster than it says.

    Raises:
        UserError: fewer than one node or core, or too few cores on this machine to pin them.
    """
    if min(nodes, cpus_per_node) < 1:
        raise UserError(f"{nodes} nodes of {cpus_per_node} cores: give at least one of each")
    cores = _cores_of_nodes(nodes, cpus_per_node) if pinned else itertools.repeat(None)
    with connecting_to_ray():
        node_environment()
    from ray.cluster_utils import Cluster

    # Free ports instead of the fixed ones: other clusters may run on this machine.
    settings: dict[str, Any] = {
        "num_cpus": cpus_per_node,
        "object_store_memory": NODE_STORE_BYTES,
        "dashboard_agent_listen_port": None,
    }
    cluster = Cluster()

    def start_head() -> None:
        port: dict[str, Any] = {} if _is_free(DASHBOARD_PORT) else {"dashboard_port": free_port()}
        cluster.add_node(include_dashboard=True, **settings, **port)

    try:
        with connecting_to_ray():
            with _held_to(next(cores)):
                _tried(start_head)
            running = LocalCluster(cluster.address, f"http://{cluster.webui_url}", cluster, settings, cores)
            for _ in range(nodes - 1):
                running.add_node()
            cluster.wait_for_nodes()
        yield running
    finally:
        cluster.shutdown()


def _cores_of_nodes(nodes: int, cpus_per_node: int) -> Iterator[set[int] | None]:
    """Return the cores of each node, and no bound for nodes that are added later.

    Raises:
        UserError: this machine has too few.
    """
    there = sorted(os.sched_getaffinity(0))
    if len(there) < nodes * cpus_per_node:
        raise UserError(f"{nodes} nodes of {cpus_per_node} cores of their own: this machine has {len(there)}")
    each = [set(there[i * cpus_per_node : (i + 1) * cpus_per_node]) for i in range(nodes)]
    return itertools.chain(each, itertools.repeat(None))


@contextmanager
def _held_to(cores: set[int] | None) -> Iterator[None]:
    """Let what this thread starts in the block, and all that comes of it, run on some cores alone."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tried(start: Callable[[], T]) -> T:
    """Start a node, again if it does not come up: on a busy machine a raylet misses time limits of Ray's own,
    which no setting changes. The raylet of a failed start is ended, or it might join the cluster later."""
    for _ in range(TRIES - 1):
        before = {process.pid for process in started_here()}
        try:
            return start()
        except Exception as error:
            if type(error) is not Exception:  # what Ray raises of a time limit has no narrower one
                raise
            for process in started_here():
                if process.pid not in before and process.title.endswith(SERVERS):
                    kill(process)
    return start()


def free_port() -> int:
    """Return a port that nothing listens on, below those of which Ray takes many (the system's own)."""
    for port in random.sample(range(20_000, 32_000), 100):
        if _is_free(port):
            return port
    raise UserError("no free port between 20000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def node_environment() -> None:
    """Set what the nodes inherit: this Python first in PATH, our HTTP limits, token authentication."""
    quiet_environment()
    os.environ.setdefault(*PROXY_CALLBACK)
    os.environ.setdefault(*HEALTH_TIMEOUT)
    binaries = Path(sys.executable).parent
    os.environ["PATH"] = f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if os.environ["RAY_AUTH_MODE"] == "token" and not os.environ.get("RAY_AUTH_TOKEN"):
        ray = shutil.which("ray") or "ray"
        # Prints the token (kept out of sight) and makes one where there is none.
        subprocess.run([ray, "get-auth-token", "--generate"], check=True, stdout=subprocess.DEVNULL)


class LocalSettings(CommandSettings):
    """The settings of the command."""

    nodes: int = Field(default=NODES, ge=1, description="Run this many nodes, the head among them.")
    cpus_per_node: int = Field(
        default=CPUS_PER_NODE, ge=1, description="Let each node claim this many cores."
    )


@command(EXAMPLES)
def main(settings: LocalSettings) -> None:
    """Run several Ray nodes on this machine until Ctrl-C."""
    nodes = settings.nodes
    with local_cluster(nodes, settings.cpus_per_node) as running:
        print(
            f"RAY_ADDRESS={running.address}\n"
            f"RAY_API_SERVER_ADDRESS={running.job_address}\n"
            f"{nodes} nodes are up (Ctrl-C stops them). In another terminal:\n"
            f"  export RAY_AUTH_MODE=token RAY_API_SERVER_ADDRESS={running.job_address}\n"
            "  ray job submit --working-dir . -- python -m jobs.build_index --help",
            flush=True,
        )
        wait_until_stopped()


if __name__ == "__main__":
    main.run()
