"""A job server in a process of its own, and jobs submitted to it as a user would.

In its own process because Ray connects once a process, and the tests' own process may be connected
to another cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 30


@dataclass(frozen=True)
class JobServer:
    """Addresses of a running cluster."""

    address: str
    job_address: str

    @property
    def environment(self) -> dict[str, str]:
        """What a client's process needs to find the cluster and to be let in."""
        return {
            **os.environ,
            "RAY_AUTH_MODE": "token",
            "RAY_API_SERVER_ADDRESS": self.job_address,
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def submitted(
        self, command: str, environment: Mapping[str, str] | None = None, seconds: float = 240
    ) -> tuple[str, str]:
        """Submit a shell command with the repository as working directory; return status and logs.

        Args:
            command: what a user writes after ``ray job submit … --``.
            environment: variables of the job.
            seconds: the job is stopped after this time.
        """
        # The client reads the authentication mode from its own environment.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        from ray.job_submission import JobStatus, JobSubmissionClient

        client = JobSubmissionClient(self.job_address)
        job = client.submit_job(
            entrypoint=command,
            runtime_env={"working_dir": str(ROOT), "env_vars": dict(environment or {})},
        )
        end = time.monotonic() + seconds
        while not (status := client.get_job_status(job)).is_terminal():
            if time.monotonic() > end:
                client.stop_job(job)
                return "TIMEOUT", client.get_job_logs(job)
            time.sleep(0.5)
        assert isinstance(status, JobStatus)
        return str(status.value), client.get_job_logs(job)


@contextmanager
def job_server(nodes: int = 1, cpus_per_node: int = 2) -> Iterator[JobServer]:
    """Run ``python -m cluster.local`` in a process of its own while the block runs."""
    options = ["--nodes", str(nodes), "--cpus-per-node", str(cpus_per_node)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "cluster.local", *options],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        try:
            yield _addresses(process, errors)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


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
