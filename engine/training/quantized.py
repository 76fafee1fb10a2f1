"""Hold frozen weights beside adapters in 4 bits (QLoRA, Dettmers et al. 2023), by the library bitsandbytes.

Each number of a linear layer is one of 16 (NF4: the quantiles of a normal distribution), times the largest of
its block of 64; those factors are kept in 8 bits. A layer's weights are put together as they are used, so
what learns and every product is as without it. The output layer and the embeddings stay as they are.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from engine.errors import UserError

Tensor = torch.Tensor

PACKAGE = "bitsandbytes"

BLOCK = 64
"""Numbers that share a factor. Rows of another length are put together wrongly on processors by version 0.50:
each with the factor of the first."""

FACTOR_BYTES = (8 / BLOCK + 32 / (BLOCK * 256)) / 8
"""A factor of 8 bits for 64 numbers, and a float32 factor for 256 of those; every worker has all of them."""

BYTES_A_NUMBER = 0.5 + FACTOR_BYTES


def check_installed() -> None:
    """Check, before work begins, that the library is here.

    Raises:
        UserError: it is not; names the extra.
    """
    if find_spec(PACKAGE) is None:
        raise UserError(
            f"--quantize 4bit needs {PACKAGE}, which is not installed here: pip install 'seedset[qlora]'"
        )


def quantize(model: Any, label: str, storage: torch.dtype = torch.float32) -> None:
    """Hold the weights of a model's linear layers in 4 bits, in place; all but those of the output layer.

    Args:
        model: of transformers, whole, in float32.
        label: the begin of an error.
        storage: type of the elements that the bits stand in, 8 numbers to a float32. ZeRO stage 3 shares
            tensors of the type that the other weights have.

    Raises:
        UserError: it has no linear layers, or one of another width than it can hold.
    """
    from bitsandbytes.nn import Linear4bit

    layers = linear_layers(model)
    if not layers:
        raise UserError(f"{label}: --quantize 4bit: it has no linear layers; leave it out")
    if odd := [path for path, layer in layers.items() if layer.in_features % BLOCK]:
        raise UserError(
            f"{label}: --quantize 4bit: {odd[0]} takes {layers[odd[0]].in_features} numbers, no multiple of "
            f"{BLOCK}; leave it out"
        )
    for path, layer in layers.items():
        packed = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=layer.weight.dtype,
            quant_type="nf4",
            quant_storage=storage,
        )
        # Else it rounds to bfloat16 where the processor can, but only while nothing learns.
        packed.support_avx512bf16_for_cpu = False
        packed.load_state_dict(layer.state_dict())
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, packed.to(layer.weight.device))


def linear_layers(model: Any) -> dict[str, nn.Linear]:
    """Return the linear layers whose weights are held in 4 bits, by their paths."""
    head = model.get_output_embeddings()
    return {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}


def quantized_weights(model: nn.Module) -> dict[str, Any]:
    """Return the parameters of a model that are held in 4 bits, by name."""
    return {name: p for name, p in model.named_parameters() if getattr(p, "quant_state", None) is not None}


def dequantized(parameter: Any) -> Tensor:
    """Return the numbers that a parameter in 4 bits stands for, in float32; all workers call it."""
    from bitsandbytes.functional import dequantize_4bit

    if hasattr(parameter, "ds_id"):
        import deepspeed

        with deepspeed.zero.GatheredParameters([parameter]):
            shared: Tensor = dequantize_4bit(parameter.data, parameter.quant_state)
            return shared.float()
    found: Tensor = dequantize_4bit(parameter.data, parameter.quant_state)
    return found.float()
