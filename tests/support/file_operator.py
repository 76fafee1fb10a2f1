"""A stand-in for DeepSpeed's compiled operator of disks: the same calls, each done at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch


class Handle:
    """Reads and writes whole files; of its buffers it knows which memory is its own."""

    def __init__(self, **options: Any) -> None:
        self._own: dict[int, int] = {}
        self._done = 0

    def async_pwrite(self, tensor: torch.Tensor, path: str, offset: int) -> int:
        """Write a file."""
        assert self.is_pinned(tensor)
        tensor.numpy().tofile(path)
        self._done += 1
        return 0

    def async_pread(self, tensor: torch.Tensor, path: str, offset: int) -> int:
        """Read a file, which has as many numbers as the tensor."""
        assert self.is_pinned(tensor)
        tensor.copy_(torch.from_numpy(np.fromfile(path, tensor.numpy().dtype)))
        self._done += 1
        return 0

    def wait(self) -> int:
        """Return how many files were read and written since it was last asked."""
        done, self._done = self._done, 0
        return done

    def new_cpu_locked_tensor(self, numbers: int, like: torch.Tensor) -> torch.Tensor:
        """Return a buffer."""
        made = torch.full((numbers,), torch.nan, dtype=like.dtype)
        self._own[made.data_ptr()] = made.numel() * made.element_size()
        return made

    def free_cpu_locked_tensor(self, tensor: torch.Tensor) -> bool:
        """Forget a buffer."""
        return self._own.pop(tensor.data_ptr(), None) is not None

    def is_pinned(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor begins in a buffer."""
        return any(start <= tensor.data_ptr() < start + size for start, size in self._own.items())


class Builder:
    """Stands for the builder of the operator."""

    def load(self, verbose: bool = True) -> Any:
        """Return the operator."""
        return SimpleNamespace(aio_handle=Handle)


def without_compiler(monkeypatch: pytest.MonkeyPatch, builder: type = Builder) -> None:
    """Let DeepSpeed have a stand-in where it would compile its operator."""
    from deepspeed.ops import op_builder
    from deepspeed.runtime.swap_tensor import partitioned_optimizer_swapper

    for module in (op_builder, partitioned_optimizer_swapper):
        monkeypatch.setattr(module, "AsyncIOBuilder", builder)
