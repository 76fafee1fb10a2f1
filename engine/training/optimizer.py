"""Open AdamW on DeepSpeed, as every training here uses it: parameter groups and the engine."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from engine.training.deepspeed import import_deepspeed
from engine.training.disk_offload import on_disk_config
from engine.training.layout import EngineLayout

BUCKET_ELEMENTS = 50_000_000
"""Gradients that DeepSpeed averages in one go; its own default sets 2 GB aside."""

GROUP_ELEMENTS = 2 * BUCKET_ELEMENTS
"""Numbers of a worker's share that AdamW steps in one go at stage 3."""


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's two groups of what learns: with weight decay, and without.

    Matrices decay; biases and the scales of norms, which have one dimension, do not, whatever they are
    called. So the authors' programs mean it, too; MESED's goes by parts of names and misses the norms of
    the text layer and of the three heads, which decay there.

    Args:
        module: parameters that need no gradient are left out.
        weight_decay: of the first group.
    """
    parameters = learning(module)
    return [
        {"params": [p for p in parameters if len(shape_of(p)) > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if len(shape_of(p)) < 2], "weight_decay": 0.0},
    ]


def shape_of(parameter: Any) -> torch.Size:
    """Return a parameter's shape, also where the workers share it and it seems to have no elements."""
    return torch.Size(getattr(parameter, "ds_shape", parameter.shape))


def learning(module: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a module that learn."""
    return [p for p in module.parameters() if p.requires_grad]


def open_engine(
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    layout: EngineLayout,
    micro_batch: int,
    micro_steps: int,
    clip: float,
    device: torch.device,
    autocast: torch.dtype = torch.float32,
) -> Any:
    """Wrap a module in a DeepSpeed engine. The process group must be there if there are several workers.

    Args:
        module: on ``device``.
        optimizer: of its parameters.
        layout: ZeRO stage and offloading.
        micro_batch: rows of a worker that pass at once.
        micro_steps: passes of a step.
        clip: largest norm of the gradient.
        device: where the worker trains.
        autocast: type of the products in which the engine runs the module; float32: as the module says.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": micro_steps,
        "gradient_clipping": clip,
        "zero_optimization": zero_config(layout),
        # Torch's own AdamW: DeepSpeed's is compiled on first use.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if layout.offload == "nvme":
        assert layout.offload_folder is not None
        config["zero_optimization"]["offload_optimizer"] = on_disk_config(
            module, layout.offload_folder, GROUP_ELEMENTS
        )
    if layout.weights == "bfloat16":
        config["bf16"] = {"enabled": True}
        # Else what micro-batches add up to would be rounded after each of them.
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    elif autocast == torch.bfloat16:
        # Not DeepSpeed's bf16 mode: with narrow weights and residuals the loss stays visibly higher.
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16"}
    engine, *_ = import_deepspeed(device).initialize(model=module, optimizer=optimizer, config=config)
    if layout.zero_stage == 0:
        # DeepSpeed multiplies every gradient, by 1 where nothing is to be clipped, and walks through the
        # module for each of its passes. A partitioned engine clips its shares itself.
        engine.clip_fp32_gradients = partial(clip_gradients, learning(module), clip)
        if torch.distributed.get_world_size() == 1:
            # The sum over one worker is its own gradient, but DeepSpeed would copy all there and back.
            engine.enable_backward_allreduce = False
    return engine


def zero_config(layout: EngineLayout) -> dict[str, Any]:
    """Return DeepSpeed's settings of ZeRO for a layout.

    At stage 3 its own defaults keep a billion gathered weights: a small model would be whole in every worker.
    What is offloaded to a disk is told the engine (:func:`open_engine`), not the model that is being opened.
    """
    zero: dict[str, Any] = {"stage": layout.zero_stage, "reduce_bucket_size": BUCKET_ELEMENTS}
    if layout.zero_stage == 3:
        zero |= {
            "stage3_max_live_parameters": BUCKET_ELEMENTS,
            "stage3_max_reuse_distance": BUCKET_ELEMENTS,
            "stage3_prefetch_bucket_size": BUCKET_ELEMENTS // 2,
            "sub_group_size": GROUP_ELEMENTS,
        }
    if layout.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
        if layout.zero_stage == 3:
            zero["offload_param"] = {"device": "cpu"}
    return zero


def clip_gradients(parameters: list[nn.Parameter], largest: float) -> None:
    """Scale gradients to a norm of at most ``largest``; smaller ones stay as they are, and are not rewritten.

    A parameter without a gradient gets one of zeros: without it, it would not decay. Equal on all workers,
    whose gradients are averaged before.

    Args:
        parameters: what learns.
        largest: norm of all gradients as one vector.
    """
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    # Only a processor's number can be looked at without waiting for all that was queued before it.
    if norm.is_cpu and norm <= largest:
        return
    nn.utils.clip_grads_with_norm_(parameters, largest, norm)
