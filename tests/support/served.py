"""A service in a process of its own, started as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.local import free_port
from cluster.processes import stop, wait_for_words
from tests.support.submit import ROOT

START_SECONDS, STOP_SECONDS = 150, 60


@dataclass(frozen=True)
class Server:
    """A running ``python -m serve.run``."""

    url: str
    process: subprocess.Popen[str]

    def replicas(self, deployment: str) -> list[psutil.Process]:
        """The processes of a deployment's replicas."""
        title = f"ray::ServeReplica:seedset:{deployment}"
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child for child in children if title in " ".join(_title(child))]


def _title(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # gone, or not yet there
        return []


@contextmanager
def server(workspace: Path, log: Path, *options: str) -> Iterator[Server]:
    """Run ``python -m serve.run`` while the block runs; its output goes to a file, so it never blocks."""
    port = free_port()
    command = [sys.executable, "-m", "serve.run", "--workspace", str(workspace), f"--port={port}"]
    environment = {**os.environ, "SEEDSET_HEAD_TIMEOUT_S": "2"}
    with log.open("w") as sink:
        process = subprocess.Popen(
            [*command, *options], cwd=ROOT, env=environment, stdout=sink, stderr=sink, text=True
        )
    try:
        wait_for_words(process, "serving at", log, START_SECONDS)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        stop(process, STOP_SECONDS)
