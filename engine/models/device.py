"""Where a process computes: its device and its threads, settled once by whoever started it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_gpu_granted = True
_threads: int | None = None


def grant(gpu: bool = True, threads: int | None = None) -> None:
    """Say what this process may use, before its models are opened.

    Args:
        gpu: whether it may use one; a process that was given none must not take one from those who were.
        threads: for computing; None: as many as torch chooses, which is all cores.
    """
    global _gpu_granted, _threads  # noqa: PLW0603: one process, one grant
    _gpu_granted, _threads = gpu, threads


def worker_device() -> torch.device:
    """Return the device that this process computes on, and let torch use as many threads as were granted.

    Several processes on one machine get a thread each: two that share a core wait for each other.
    """
    import torch

    if _gpu_granted and torch.cuda.is_available():
        return torch.device("cuda")
    if _threads is not None:
        torch.set_num_threads(_threads)
    return torch.device("cpu")
