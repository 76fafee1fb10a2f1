"""Import DeepSpeed as every training here uses it: without a compiler, with or without a launcher."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional


@contextmanager
def torch_settings_restored() -> Iterator[None]:
    """Take back, when the block ends, what DeepSpeed puts in torch's place.

    ZeRO stage 3 has a ``linear`` of its own for the whole process, for good, and that one rounds otherwise.
    """
    linear = functional.linear
    try:
        yield
    finally:
        functional.linear = linear


def import_deepspeed(device: torch.device) -> Any:
    """Import DeepSpeed for a device and join the process group (one of size 1 if there is none)."""
    import logging
    import os
    import warnings

    # Its calls into torch.distributed go by names that torch has begun to rename.
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    os.environ.setdefault("LOCAL_RANK", "0")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Which of its operators could be compiled here it finds out by compiling, and tells the terminal so.
    # Only that of shared memory, which inference uses, is looked up: no compiler is needed to train on CPU.
    deepspeed.ops.__compatible_ops__ = {}
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False
    )
    return deepspeed
