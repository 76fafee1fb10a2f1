"""Serve the workspace on the cluster, by the command that a user runs."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster.crashing.commands import seedset
from cluster.local import free_port
from cluster.processes import SHOWN, stop, wait_for_words
from engine.errors import UserError

READY_S, STOP_S = 300.0, 60.0

OPTIONS = (
    *("--replicas", 2, "--set", "ingress_replicas=2"),
    *("--set", "num_cpus=0.2", "--set", "bundle_poll_interval_s=0.5"),
    # What is lost is lost through a fault, not through a limit.
    *("--set", "max_wait_s=600", "--set", "timeout_s=120"),
)


@contextmanager
def service(
    workspace: Path,
    methods: Sequence[str],
    output: Path,
    within: Callable[[Sequence[str]], Sequence[str]] = lambda words: words,
) -> Iterator[str]:
    """Serve while the block runs; yields the address.

    Args:
        workspace: its folder.
        methods: that are served.
        output: file of what the command writes.
        within: makes of a command one that runs where it is to run, such as in a network namespace.

    Raises:
        UserError: it does not come up, or ended meanwhile; with what it wrote.
    """
    port = free_port()
    words = seedset(
        "serve", "--workspace", workspace, "--port", port, "--methods", ",".join(methods), *OPTIONS
    )
    with output.open("wb") as log:
        process = subprocess.Popen(
            within(words), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_for_words(process, "serving at", output, READY_S)
            yield f"http://127.0.0.1:{port}"
            if process.poll() is not None:
                written = output.read_text(encoding="utf-8", errors="replace")[-SHOWN:]
                raise UserError(f"the service ended with status {process.returncode}: {written}")
        finally:
            stop(process, STOP_S)
