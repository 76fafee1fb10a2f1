"""Open a language model that no worker holds whole: ZeRO stage 3 from the first parameter on.

Each module's parameters are split among the workers as soon as the module is made, so a worker holds its
share of the model, and of one module all. Weights that exist are then read from safetensors file by file,
by every worker for its own share; the files are mapped, so of a tensor only the pages of the share are
read. Weights that begin here are drawn by the first worker module by module, in the order in which
transformers draws them: on a processor they are those of the plain way
(:func:`engine.training.lm_models.open_model`); a card has random numbers of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import nn

from engine.models.hub import NamedModel
from engine.training.deepspeed import import_deepspeed
from engine.training.layout import EngineLayout
from engine.training.optimizer import zero_config
from engine.training.partitioned import fill, kept_buffers

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Tensor = torch.Tensor


def begin_partitioned(
    config: PreTrainedConfig, seed: int, layout: EngineLayout, device: torch.device
) -> nn.Module:
    """Return a new model in float32, each worker with its share; all workers call it.

    Args:
        config: of a causal language model.
        seed: gives the weights that the plain way gives.
        layout: of the run, at stage 3.
        device: where the worker trains.

    Raises:
        ValueError, TypeError: no such model can be made.
    """
    from transformers.integrations.deepspeed import initialize_weights_zero3

    torch.manual_seed(seed)
    with _drawn_by(initialize_weights_zero3):
        return _made(config, layout, device)


def read_partitioned(
    named: NamedModel, config: PreTrainedConfig, layout: EngineLayout, device: torch.device
) -> nn.Module | None:
    """Return a model that exists in float32, each worker with its share; all workers call it.

    Args:
        named: where its files are.
        config: its own.
        layout: of the run, at stage 3.
        device: where the worker trains.

    Returns:
        None where its files do not hold its weights one by one under their own names: such a model only
        transformers can put together, whole.
    """
    places = weight_files(named, config)
    if places is None:
        return None
    from transformers.initialization import no_init_weights

    with no_init_weights(), _drawn_by(lambda model: None):
        model: Any = _made(config, layout, device)
    tensors = dict(model.named_parameters()) | _kept(model)
    for path, names in sorted(places.items()):
        with safe_open(path, "pt") as file, torch.no_grad():
            for stored, name in names.items():
                fill(tensors[name], file.get_tensor(stored))
    return model


def weight_files(named: NamedModel, config: PreTrainedConfig) -> dict[Path, dict[str, str]] | None:
    """Return for each file of a model the names of the weights in it, and their names in the model.

    None where one of the model's weights is in no file, or has another shape there; where a file has more
    than the model, but for what is tied or made anew; or where the weights are quantised.
    """
    if getattr(config, "quantization_config", None) is not None:
        return None
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(config)
    wanted = {name: tuple(t.shape) for name, t in [*model.named_parameters(), *_kept(model).items()]}
    spare = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    spare |= {name for name, _ in model.named_buffers(remove_duplicate=False)}
    prefix = f"{model.base_model_prefix}."
    found: dict[Path, dict[str, str]] = {}
    for path in _files(named):
        with safe_open(path, "pt") as file:
            for stored in file.keys():  # noqa: SIM118 (it is no dict)
                name = stored if stored in spare else prefix + stored
                if name in wanted and tuple(file.get_slice(stored).get_shape()) == wanted[name]:
                    found.setdefault(path, {})[stored] = name
                elif name not in spare or name in wanted:
                    return None
    held = [name for names in found.values() for name in names.values()]
    return found if sorted(held) == sorted(wanted) else None


def _files(named: NamedModel) -> list[Path]:
    """Return a model's files of weights: one, or those that an index names; none if they are not there."""
    index = named.find("model.safetensors.index.json")
    if index is None:
        single = named.find("model.safetensors")
        return [single] if single else []
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    paths = [named.find(name) for name in names]
    return [path for path in paths if path]


def _kept(model: Any) -> dict[str, Tensor]:
    """Return the buffers that a model's files hold."""
    return dict(kept_buffers(model))


def _made(config: PreTrainedConfig, layout: EngineLayout, device: torch.device) -> nn.Module:
    """Return a model whose parameters are split as they are made, and are not drawn by transformers yet."""
    from transformers import AutoModelForCausalLM

    deepspeed = import_deepspeed(device)
    described = {"train_micro_batch_size_per_gpu": 1, "zero_optimization": zero_config(layout)}
    # Without a dtype it takes that of its settings, float32; one that is given counts on GPUs alone.
    with deepspeed.zero.Init(config_dict_or_path=described):
        model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


@contextmanager
def _drawn_by(draw: Callable[[Any], None]) -> Iterator[None]:
    """Let ``draw`` give a model of transformers its first weights, where its class has them drawn."""
    from transformers import PreTrainedModel

    def init_weights(model: Any) -> None:
        draw(model)
        model.tie_weights(recompute_mapping=False)

    original = PreTrainedModel.init_weights
    PreTrainedModel.init_weights = init_weights  # type: ignore[method-assign]
    try:
        yield
    finally:
        PreTrainedModel.init_weights = original  # type: ignore[method-assign]


def narrow_weights(model: nn.Module) -> None:
    """Turn a partitioned model's weights into bfloat16; DeepSpeed keeps float32 shares of them beside.

    Buffers stay as they are.
    """
    for parameter in model.parameters():
        share = getattr(parameter, "ds_tensor", None)
        parameter.data = parameter.data.to(torch.bfloat16)
        if share is not None:
            share.data = share.data.to(torch.bfloat16)
