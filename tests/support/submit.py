"""A job server in a process of its own, and jobs submitted to it as a user would.

All in processes of their own: Ray connects once a process, reads once how it is to be let in, and the
tests' own process may be connected to another cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.processes import stop

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 30


@dataclass(frozen=True)
class JobServer:
    """Addresses of a running cluster."""

    address: str
    job_address: str

    @property
    def environment(self) -> dict[str, str]:
        """Return the environment that a client's process needs to reach the cluster and authenticate."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_API_SERVER_ADDRESS": self.job_address,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def submitted(self, *words: str, seconds: float = 240) -> tuple[int, str]:
        """Submit a command by ``ray job submit``, from the repository; return status and output.

        Args:
            words: what a user writes after ``--``.
            seconds: more is a failure.
        """
        ray = shutil.which("ray", path=str(Path(sys.executable).parent)) or "ray"
        done = subprocess.run(
            [ray, "job", "submit", "--working-dir", ".", "--", *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr


@contextmanager
def job_server(
    nodes: int = 1, cpus_per_node: int = 2, environment: Mapping[str, str] | None = None
) -> Iterator[JobServer]:
    """Run ``python -m cluster.local`` in a process of its own while the block runs.

    Args:
        nodes: see there.
        cpus_per_node: see there.
        environment: variables that its nodes, and so the jobs, have besides this process' own.
    """
    options = ["--nodes", str(nodes), "--cpus-per-node", str(cpus_per_node)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.local", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            yield _addresses(process, errors)
        finally:
            stop(process, STOP_SECONDS)


def _addresses(process: subprocess.Popen[str], errors: object) -> JobServer:
    """Read the lines that the cluster prints when it is up."""
    found: dict[str, str] = {}
    assert process.stdout is not None
    for line in process.stdout:
        key, _, value = line.strip().partition("=")
        found[key] = value
        if "nodes are up" in line:
            return JobServer(found["RAY_ADDRESS"], found["RAY_API_SERVER_ADDRESS"])
    errors.seek(0)  # type: ignore[attr-defined]
    raise RuntimeError(f"the cluster did not start: {errors.read()}")  # type: ignore[attr-defined]
