"""Connect a job to its cluster: the one it was submitted to, or a small one on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

LOCAL_OBJECT_STORE_BYTES = 1 << 30
"""Ray's own default takes a third of the memory; our blocks are a few MB."""


def quiet_environment() -> None:
    """Set what must be set before Ray or a tokenizer is imported: no usage statistics, no fork warnings."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")


@contextmanager
def session(cpus: int | None = None) -> Iterator[None]:
    """Use the cluster of ``RAY_ADDRESS`` (set by ``ray job submit``), else start one for this block.

    A cluster that is connected already, by a test or a caller, is used and left running.

    Args:
        cpus: cores of a cluster that is started here; default: all of the machine's.
    """
    quiet_environment()
    import ray
    from ray.data import DataContext

    DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    if ray.is_initialized():
        yield
        return
    settings: dict[str, object] = {"log_to_driver": True, "logging_level": logging.WARNING}
    if not os.environ.get("RAY_ADDRESS"):
        settings |= {
            "num_cpus": cpus,
            "include_dashboard": False,
            "object_store_memory": LOCAL_OBJECT_STORE_BYTES,
        }
    ray.init(**settings)
    try:
        yield
    finally:
        ray.shutdown()
