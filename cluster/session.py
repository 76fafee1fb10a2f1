"""Connect a job to its cluster: the one it was submitted to, or a small one on this machine."""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from io import RawIOBase
from typing import Any

from cluster.errors import connecting_to_ray, user_error

LOCAL_OBJECT_STORE_BYTES = 1 << 30
"""Ray's own default takes a third of the memory; our blocks are a few MB."""

FORWARD_S = 0.05
"""Seconds that a line waits at most where others are dropped."""

LOG_LEVEL_NOTE = b"Set ray log level from environment variable"
"""Ray's C++ side answers a log level with this line, whatever the level; no setting keeps it quiet."""


def quiet_environment() -> None:
    """Set what Ray and tokenizers read on import, and what a cluster that is started here gives its workers.

    No usage statistics, no fork warnings; and workers that get their share of a busy machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray's C++ side reports every actor pool's arguments as an error; what fails is raised as well.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Ray makes its workers yield to everything else (niceness 15): beside one busy process a training on all
    # cores would get a thirtieth of that core, and its other threads would wait for the one there.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # Token authentication is on, as it should be: no need to warn of it.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)


@contextmanager
def session(cpus: int | None = None) -> Iterator[None]:
    """Use the cluster of ``RAY_ADDRESS`` (``ray job submit`` sets it), else start one here.

    A cluster that is connected already, by a test or a caller, is used and left running. What a user can
    mend of a worker's error leaves the block as itself (see :func:`cluster.errors.user_error`).

    Args:
        cpus: cores of a cluster that is started here; default: all of the machine's.
    """
    quiet_environment()
    import ray
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    # What Ray Data logs as an error it also raises: one report is enough.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        with unwrapped():
            yield
        return
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.WARNING}
    if not os.environ.get("RAY_ADDRESS"):
        # Nobody takes this machine away with notice: Ray Train needs no process that looks out for that.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        settings |= {
            # Without it Ray joins any cluster that it finds on this machine, a stranger's too.
            "address": "local",
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        }
    with without_lines(LOG_LEVEL_NOTE), connecting_to_ray(os.environ.get("RAY_ADDRESS")):
        ray.init(**settings)
    try:
        with unwrapped():
            yield
    finally:
        ray.shutdown()


@contextmanager
def without_lines(unwanted: bytes, descriptor: int = 2) -> Iterator[None]:
    """Drop lines of what anything in this process writes to the terminal in the block.

    Args:
        unwanted: regular expression of what the dropped lines hold; all others are written within
            :data:`FORWARD_S`.
        descriptor: 1: standard output, 2: standard error.
    """
    python = sys.stdout if descriptor == 1 else sys.stderr
    try:
        terminal = os.dup(descriptor)
    except OSError:  # it is closed
        yield
        return
    # A file and no pipe: processes that are started in the block keep their end of it, and write on after it.
    with tempfile.TemporaryFile() as held, os.fdopen(terminal, "wb", buffering=0) as stream:
        python.flush()
        os.dup2(held.fileno(), descriptor)
        forward = _Forward(held.fileno(), stream, unwanted)
        forward.start()
        try:
            yield
        finally:
            python.flush()
            os.dup2(terminal, descriptor)
            forward.end()


class _Forward(threading.Thread):
    """A thread that writes the lines of a growing file to a stream as they come, but the unwanted ones."""

    def __init__(self, file: int, stream: RawIOBase, unwanted: bytes) -> None:
        super().__init__(daemon=True)
        self._file, self._stream, self._unwanted = file, stream, re.compile(unwanted)
        self._place = 0
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(FORWARD_S):
            self._forward(last=False)
        self._forward(last=True)

    def end(self) -> None:
        """Write what is left, a line without an end too."""
        self._ended.set()
        self.join()

    def _forward(self, last: bool) -> None:
        # The place in the file belongs to those who write: pread leaves it.
        new = os.pread(self._file, os.fstat(self._file).st_size - self._place, self._place)
        whole = new if last else new[: new.rfind(b"\n") + 1]
        self._place += len(whole)
        lines = whole.splitlines(keepends=True)
        kept = b"".join(line for line in lines if not self._unwanted.search(line))
        while kept:
            kept = kept[self._stream.write(kept) :]


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let what a user can mend of a worker's error leave the block as a :class:`UserError`."""
    try:
        yield
    except Exception as error:
        found = user_error(error)
        if found is None or found is error:
            raise
        raise found from error
