"""Connect a job to its cluster: the one it was submitted to, or a small one on this machine."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.errors import UserError

LOCAL_OBJECT_STORE_BYTES = 1 << 30
"""Ray's own default takes a third of the memory; our blocks are a few MB."""

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

    A cluster that is connected already, by a test or a caller, is used and left running. A
    :class:`UserError` that a worker raised leaves the block as itself (see :func:`user_error`).

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
    with without_lines(LOG_LEVEL_NOTE):
        ray.init(**settings)
    try:
        with unwrapped():
            yield
    finally:
        ray.shutdown()


@contextmanager
def without_lines(unwanted: bytes, descriptor: int = 2) -> Iterator[None]:
    """Hold back what anything in this process writes to the terminal in the block, and drop lines after it.

    Args:
        unwanted: bytes of the lines that are dropped; all others are written when the block ends.
        descriptor: 1: standard output, 2: standard error.
    """
    python = sys.stdout if descriptor == 1 else sys.stderr
    try:
        terminal = os.dup(descriptor)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        python.flush()
        os.dup2(held.fileno(), descriptor)
        try:
            yield
        finally:
            python.flush()
            os.dup2(terminal, descriptor)
            held.seek(0)
            kept = b"".join(line for line in held if unwanted not in line)
            with os.fdopen(terminal, "wb") as stream:
                stream.write(kept)


def user_error(error: BaseException) -> UserError | None:
    """Return the :class:`UserError` of a worker that Ray wrapped into ``error``, if there is one.

    It is found where a task or an actor's method raised it. Of an actor whose constructor fails Ray
    keeps the text only: a worker that may meet a user's mistake there keeps the error and raises it
    when it is first called.
    """
    seen: BaseException | None = error
    found = None
    while seen is not None:
        # The last one: Ray's wrapper looks like what it wraps, but its text is a traceback.
        found = seen if isinstance(seen, UserError) else found
        seen = getattr(seen, "cause", None) or seen.__cause__
    return found


@contextmanager
def unwrapped() -> Iterator[None]:
    """Let a :class:`UserError` that a worker raised leave the block as itself."""
    try:
        yield
    except Exception as error:
        found = user_error(error)
        if found is None or found is error:
            raise
        raise found from None
