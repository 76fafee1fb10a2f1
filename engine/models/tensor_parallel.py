"""Load a language model whose layers are split over the processes of a tensor-parallel group.

The split is transformers' own (Megatron's, Shoeybi et al. 2019): of a layer's matrices each process holds the
rows or the columns that its plan names, and two all-reduces a layer join what they compute. Embeddings and
output layer are whole in every process that needs them: the logits are made by one process alone, for the
tokens that are asked for.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.errors import UserError
from engine.models.hub import ADAPTER, NamedModel

STYLES = frozenset(
    {"colwise", "rowwise", "colwise_gather_output", "rowwise_split_input", "replicated_with_grad_allreduce"}
)
"""Ways of splitting a layer that were compared with whole models; those of experts are not among them."""

WHOLE = "replicate"
"""transformers' word for a module that every process holds whole."""

OUTSIDE = ("embed_tokens", "lm_head")
"""The modules beside the layers, as plans call them."""

SPLITTABLE = "a dense Llama, Mistral, Qwen or Gemma model of text"
"""What can be split, for errors."""


def check_tensor_parallel(named: NamedModel, processes: int) -> None:
    """Check that a language model can be split over some processes, by its configuration.

    Args:
        named: the model; its weights are not read.
        processes: of the group.

    Raises:
        UserError: it is an adapter or quantised, transformers has no plan for it that we know, or its heads
            cannot be shared out evenly.
    """
    role = f"{named.label}: tensor_parallel {processes}"
    if named.find(ADAPTER) is not None:
        raise UserError(
            f"{role} with an adapter, which is merged into a whole model when it is loaded; train it without "
            "--keep-adapter, which merges it once"
        )
    config: Any = named.config()
    if getattr(config, "quantization_config", None) is not None:
        raise UserError(
            f"{role} with a quantised model, whose packed weights are not split; name the model in 16 or 32 "
            "bits, or leave tensor_parallel out"
        )
    plan = config.base_model_tp_plan or {}
    if not plan or set(plan.values()) - STYLES:
        kind = "no plan to split" if not plan else "a plan with experts, which are not split here, for"
        raise UserError(
            f"{role}: transformers has {kind} a model of type {config.model_type!r}; name {SPLITTABLE}, or "
            "leave tensor_parallel out"
        )
    heads = {"attention heads": config.num_attention_heads}
    heads["key-value heads"] = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    for what, number in heads.items():
        if number % processes:
            fitting = [n for n in range(2, number + 1) if not any(h % n for h in heads.values())]
            told = f"it can be split over {', '.join(map(str, fitting))}" if fitting else "it cannot be split"
            raise UserError(f"{role}: the model has {number} {what}, which is no multiple of that; {told}")


def load_part(named: NamedModel, kind: Any, dtype: torch.dtype, processes: int) -> Any:
    """Load this process's part of a model. All processes of the default group must call it.

    Args:
        named: the model, see :func:`check_tensor_parallel`.
        kind: class of transformers that reads models.
        dtype: of the weights.
        processes: of the default process group of ``torch.distributed``.

    Raises:
        UserError: it cannot be loaded.
    """
    from transformers.distributed import DistributedConfig

    whole = dict.fromkeys(_outside(named, kind), WHOLE)
    return named.model(
        kind, dtype, distributed_config=DistributedConfig(tp_size=processes, tp_plan=whole)
    ).requires_grad_(False)


def _outside(named: NamedModel, kind: Any) -> list[str]:
    """Return the rules of the model's plan for what lies beside its layers, by their full names."""
    with torch.device("meta"):
        plan = kind.from_config(named.config()).tp_plan
    return [rule for rule in plan if rule.rpartition(".")[2] in OUTSIDE]
