"""Choose a process's device and its threads, once, as what started it decides."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_gpu_granted = True
_threads: int | None = None
_split = {"processes": 1}


def grant(gpu: bool = True, threads: int | None = None) -> None:
    """Set what this process may use, before its models are opened.

    Args:
        gpu: whether it may use one; a process that was given none must not take one from those who were.
        threads: for computing; None: as many as torch chooses, which is all cores.
    """
    global _gpu_granted, _threads
    _gpu_granted, _threads = gpu, threads


def split_models(processes: int) -> None:
    """Set over how many processes this one splits a language model, before it is opened; 1: over none."""
    _split["processes"] = processes


def processes_of_a_model() -> int:
    """Return over how many processes a language model is split."""
    return _split["processes"]


def worker_device(gpu: bool = True, cores: float | None = None) -> torch.device:
    """Return the device of a worker's process, after the number of its threads was set.

    Args:
        gpu: take the GPU that the process sees, if it sees one and was granted it.
        cores: that the worker may use on the CPU; None: what was granted. A thread more than there are cores
            is worse than one too few: all wait for each other at every product.
    """
    import torch

    if gpu and _gpu_granted and torch.cuda.is_available():
        return torch.device("cuda")
    threads = _threads if cores is None else max(1, int(cores))
    if threads is not None:
        torch.set_num_threads(threads)
    return torch.device("cpu")
