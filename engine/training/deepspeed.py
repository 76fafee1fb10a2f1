"""DeepSpeed as every training here uses it: without a compiler, with or without a launcher."""

from __future__ import annotations

from typing import Any

import torch


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
    from deepspeed.ops import __compatible_ops__

    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Only inference uses this shared-memory operator; without it no compiler is needed to train on CPU.
    __compatible_ops__["deepspeed_shm_comm"] = False
    if not torch.distributed.is_initialized():
        store = torch.distributed.HashStore()
        torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    deepspeed.init_distributed(
        dist_backend="nccl" if device.type == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False
    )
    return deepspeed
