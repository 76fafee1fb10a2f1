"""Several training processes without Ray."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp

PRELOADED = ["tests.support.lm_workers", "tests.support.pair_workers"]
"""Modules of workers: they and the libraries under them are imported once, not by each process."""


def run_processes(worker: Callable[..., None], number: int, *arguments: Any) -> None:
    """Call ``worker(rank, *arguments)`` in so many processes, and wait for their ends."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(worker, arguments, nprocs=number, start_method="forkserver")
