"""Train adapters of a language model in place of its weights (LoRA, Hu et al. 2022), by the library peft.

The weights that exist are frozen: they need no gradient, no optimiser's state and no place in a checkpoint.
Beside each adapted layer W two matrices learn, A [r, in] and B [out, r], and the layer computes with
W + (alpha / r) B A. B begins at zero, so a training begins with the model as it was.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.errors import UserError
from engine.models.adapters import Base
from engine.training.partitioned import full_weights
from engine.training.quantized import dequantized, quantized_weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from engine.training.settings import LmSettings

Tensor = torch.Tensor

ADAPTER_NAME = "default"
"""Name of the one adapter that peft gives to a model by itself."""

_WEIGHTS = "adapter_model.safetensors"


def adapt(model: Any, settings: LmSettings, label: str) -> None:
    """Freeze a model and put adapters beside its layers, in place; the same on all workers.

    Args:
        model: of transformers; the workers may share it.
        settings: rank, alpha, the adapted layers and the seed.
        label: the begin of an error.

    Raises:
        UserError: the model has no layer of the names that were asked for, or one that is no linear layer.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora.layer import Linear

    # Peft loads bitsandbytes wherever it is installed, which tells of a faster kernel that it does not find.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    targets: str | list[str] = settings.lora_targets
    if targets != "all-linear":
        targets = [name for name in re.split(r"[,\s]+", settings.lora_targets) if name]
    config = LoraConfig(
        r=settings.lora_rank, lora_alpha=settings.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    torch.manual_seed(settings.seed)
    model.requires_grad_(False)
    try:
        inject_adapter_in_model(config, model, ADAPTER_NAME)
    except ValueError as error:
        kinds = sorted({n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, nn.Linear)})
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{label}: --lora-targets {settings.lora_targets}: {reason}; its linear layers are "
            f"{', '.join(kinds)}"
        ) from None
    for name, layer in _adapted(model).items():
        if not isinstance(layer, Linear):
            raise UserError(
                f"{label}: --lora-targets {settings.lora_targets}: {name} is no linear layer; name others"
            )


def is_adapted(model: nn.Module) -> bool:
    """Return whether a model has adapters."""
    return bool(_adapted(model))


def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield each weight of the model as it was before :func:`adapt`, with its adapter's product added.

    Whole, in float32, one at a time; all workers iterate.
    """
    layers, packed = _adapted(model), quantized_weights(model)
    small = dict(full_weights(model, only=_is_adapter))
    for name, tensor in full_weights(model, only=lambda name: not _is_adapter(name)):
        if name in packed:
            tensor = dequantized(packed[name])
        path, between, last = name.rpartition(".base_layer.")
        if not between:
            yield name, tensor
        elif last == "weight":
            a, b = (small[f"{path}.lora_{side}.{ADAPTER_NAME}.weight"] for side in "AB")
            product = layers[path].scaling[ADAPTER_NAME] * (b @ a)
            yield f"{path}.{last}", tensor + (product.T if layers[path].fan_in_fan_out else product)
        else:
            yield f"{path}.{last}", tensor


def write_adapter(
    model: Any, base: Base, tokenizer: PreTrainedTokenizerBase, folder: Path, first: bool
) -> None:
    """Write a folder that peft and :func:`engine.models.adapters.language_model` read; all workers call it.

    Args:
        model: adapted.
        base: the model that the adapter belongs to.
        tokenizer: its own.
        folder: exists.
        first: whether this worker writes.
    """
    from safetensors.torch import save_file

    small = {
        f"base_model.model.{name.replace(f'.{ADAPTER_NAME}.', '.')}": tensor.cpu().contiguous().clone()
        for name, tensor in full_weights(model, only=_is_adapter)
    }
    if not first:
        return
    save_file(small, folder / _WEIGHTS, {"format": "pt"})
    config = model.peft_config[ADAPTER_NAME]
    config.base_model_name_or_path = base.name
    config.inference_mode = True
    config.save_pretrained(str(folder))
    model.config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    base.write(folder)


def _adapted(model: nn.Module) -> dict[str, Any]:
    """Return a model's adapted layers by their paths."""
    return {path: module for path, module in model.named_modules() if hasattr(module, "lora_A")}


def _is_adapter(name: str) -> bool:
    return ".lora_A." in name or ".lora_B." in name
