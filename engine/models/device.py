"""Choose where a worker computes, and on how many threads: the one place where either is decided."""

from __future__ import annotations

import torch


def worker_device(gpu: bool = True, cores: float | None = None) -> torch.device:
    """Return the device of a worker's process, after the number of its threads was set.

    Args:
        gpu: take the GPU that the process sees, if it sees one.
        cores: that the worker may use on the CPU; None: it is one of a pool of a worker a core. A thread
            more than there are cores is worse than one too few: all wait for each other at every product.
    """
    if gpu and torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(max(1, int(cores or 1)))
    return torch.device("cpu")
