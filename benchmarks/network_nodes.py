"""Run two Ray nodes in network namespaces of this machine, each with an address of its own.

The namespaces are joined by a pair of virtual network cards; a node is cut off by taking its card down. Needs
Linux, root, and the command ``ip`` (iproute2).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from cluster.crashing.commands import Running
from cluster.crashing.events import Log
from cluster.local import NODE_STORE_BYTES, TRIES, node_environment
from engine.errors import UserError

HEAD, WORKER = "10.77.31.1", "10.77.31.2"
"""Addresses of the two nodes: seen in their namespaces alone, so they may be in use outside."""

CARD = "card"
"""Name of the network card in each namespace."""

ADDRESS = f"{HEAD}:6379"
CPUS = 2

HEALTH_CHECK = {"period_ms": 2000, "timeout_ms": 5000, "failure_threshold": 4}
"""After four checks of 5 s at most without an answer a node counts as dead."""

ALIVE = (
    f"import ray; ray.init(address='{ADDRESS}', log_to_driver=False, logging_level='ERROR'); "
    "print('alive', sum(node['Alive'] for node in ray.nodes()))"
)

SETTLE_S = 180.0
"""Time for the head to give up a node that was cut off."""

LIMIT_S = 900.0
"""A command that has not ended by then is killed, and counts as failed."""

CLONE_NEWNET = 0x40000000
"""Kind of namespace that ``setns`` is told (linux/sched.h)."""

NOT_AT_WORK = ("ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray::SPILL", "ray::RESTORE")
"""Beginnings of what processes of every node call themselves."""


def cluster_environment() -> None:
    """Set what the nodes, and the commands that use them, inherit."""
    node_environment()
    os.environ |= {f"RAY_health_check_{name}": str(value) for name, value in HEALTH_CHECK.items()}
    # Else gloo takes the card of the machine's own name: loopback, over which no other node is reached.
    os.environ["GLOO_SOCKET_IFNAME"] = CARD


def workers_among(titles: Iterable[str]) -> int:
    """Return how many processes are actors or tasks, by what they call themselves."""
    return sum(title.startswith("ray::") and not title.startswith(NOT_AT_WORK) for title in titles)


class Namespace(NamedTuple):
    """A network namespace, the card in it, and the address of that."""

    name: str
    card: str
    address: str

    def words(self, words: Sequence[object]) -> list[str]:
        """Return the words of a command that runs in it."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def processes(self) -> list[tuple[int, str]]:
        """Return the processes in it, and what they call themselves."""
        found = []
        for pid in ip("netns", "pids", self.name).split():
            with suppress(OSError):  # it has ended meanwhile
                title = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
                found.append((int(pid), title))
        return found

    def end_processes(self) -> None:
        """Kill all that runs in it: nothing does that was not started here."""
        while left := self.processes():
            for pid, _ in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def enter(self) -> None:
        """Let this thread use its network from now on, and what it starts; no other thread does."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path(f"/run/netns/{self.name}").open("rb") as file:
            if libc.setns(file.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"setns to {self.name}")

    def workers(self) -> int:
        """Return how many actors and tasks of Ray run in it."""
        return workers_among(title for _, title in self.processes())

    def switch(self, state: str) -> None:
        """Take its card "up" or "down"."""
        ip("-n", self.name, "link", "set", self.card, state)


def ip(*words: str) -> str:
    """Run ``ip``, and return what it writes.

    Raises:
        UserError: it is not there, or refuses.
    """
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError("no command `ip` on this machine: install iproute2") from None
    if done.returncode:
        raise UserError(f"ip {' '.join(words)}: {done.stderr.strip()}; network namespaces need root")
    return done.stdout


@contextmanager
def joined_namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    """Make two namespaces that are joined by their cards, while the block runs."""
    mark = f"part{os.getpid()}"
    head, worker = Namespace(f"{mark}-a", CARD, HEAD), Namespace(f"{mark}-b", CARD, WORKER)
    made = []
    try:
        for one in (head, worker):
            ip("netns", "add", one.name)
            made.append(one)
        pair = ("type", "veth", "peer", "name", worker.card, "netns", worker.name)
        ip("link", "add", head.card, "netns", head.name, *pair)
        for one in made:
            ip("-n", one.name, "address", "add", f"{one.address}/24", "dev", one.card)
            ip("-n", one.name, "link", "set", "lo", "up")
            one.switch("up")
        yield head, worker
    finally:
        for one in made:
            one.end_processes()
            ip("netns", "delete", one.name)


class Nodes:
    """The two Ray nodes.

    Args:
        head, worker: their namespaces.
        folder: for Ray's session.
    """

    def __init__(self, head: Namespace, worker: Namespace, folder: Path) -> None:
        self.head, self.worker, self._folder = head, worker, folder

    def start(self, namespace: Namespace) -> subprocess.Popen[bytes]:
        """Start a node, and return its first process, which lives as long as it does."""
        settings = ["--node-ip-address", namespace.address, "--num-cpus", CPUS, "--disable-usage-stats"]
        settings += ["--object-store-memory", NODE_STORE_BYTES, "--block"]
        if namespace is self.head:
            settings += ["--head", "--port", ADDRESS.rpartition(":")[2], "--temp-dir", self._folder]
            settings += ["--include-dashboard", "false"]
        else:
            settings += ["--address", ADDRESS]
        ray = Path(sys.executable).parent / "ray"
        with (self._folder.parent / f"{namespace.name}.log").open("ab") as written:
            return subprocess.Popen(
                namespace.words([ray, "start", *settings]),
                stdout=written,
                stderr=written,
                start_new_session=True,
            )

    def start_both(self) -> None:
        """Start the nodes, and wait until they know each other."""
        for count, one in enumerate((self.head, self.worker), start=1):
            self.join(one, count)

    def join(self, namespace: Namespace, count: int) -> None:
        """Start a node, again if it does not come up on a busy machine, and wait for so many nodes.

        Raises:
            RuntimeError: it does not come up.
        """
        for _ in range(TRIES):
            process = self.start(namespace)
            while process.poll() is None:
                if self.alive() == count:
                    return
                time.sleep(1)
            namespace.end_processes()
        raise RuntimeError(f"the node {namespace.address} did not come up in {TRIES} tries")

    def alive(self) -> int:
        """Return how many nodes the cluster has; 0 while it does not answer."""
        words = self.head.words([sys.executable, "-c", ALIVE])
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        said = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("alive ")]
        return int(said[0]) if said else 0

    def wait_for(self, count: int, seconds: float) -> None:
        """Wait until the cluster has so many nodes.

        Raises:
            RuntimeError: it has not in time.
        """
        end = time.monotonic() + seconds
        while (found := self.alive()) != count:
            if time.monotonic() > end:
                raise RuntimeError(f"{found} nodes after {seconds:.0f} s, not {count}")
            time.sleep(1)

    def mend(self) -> None:
        """Bring a node that was cut off back: its card, and a new raylet in the place of the lost one."""
        self.wait_for(1, SETTLE_S)
        self.worker.end_processes()
        self.worker.switch("up")
        self.join(self.worker, 2)


def bounded(name: str, words: Sequence[str], log: Log) -> str:
    """Run a command for :data:`LIMIT_S` at most; return what it wrote if it failed or was killed, else ""."""
    running = Running(name, log)
    limit = threading.Timer(LIMIT_S, running.strike)
    limit.start()
    ended, _ = running.run(words)
    limit.cancel()
    late = f"killed after {LIMIT_S:.0f} s; " if ended.killed else ""
    return f"{late}{ended.output or ended.status}" if ended.status else ""
