"""Open a language model to train: an existing one, or a new one of a preset or a configuration file.

A model that is begun here gets random weights from a seed, so that every worker begins with the same.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict
from torch import nn

from engine.errors import UserError
from engine.models.fingerprint import check_unchanged, model_fingerprint
from engine.models.fit import check_embeddings, check_language_model, text_positions
from engine.models.hub import NamedModel
from engine.training.layout import EngineLayout
from engine.training.lora import adapt, is_adapted, merged_weights
from engine.training.memory import ModelShape
from engine.training.partitioned import (
    ShardWriter,
    elements,
    full_weights,
    kept_buffers,
    learning,
    shard_name,
)
from engine.training.partitioned_model import begin_partitioned, read_partitioned
from engine.training.quantized import linear_layers
from engine.training.settings import LmSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 128, "intermediate_size": 352, "num_hidden_layers": 4, "num_attention_heads": 4},
    "small": {"hidden_size": 256, "intermediate_size": 672, "num_hidden_layers": 6, "num_attention_heads": 4},
}
"""Shapes of new models; the rest is :data:`COMMON`."""

ROLE = "--model"
"""The option that names an existing model, for errors."""

COMMON = {"model_type": "llama", "max_position_embeddings": 1024, "tie_word_embeddings": True}


class Origin(BaseModel):
    """The origin of a model: the name of an existing one, or the configuration of a new one."""

    model_config = ConfigDict(frozen=True)

    name: str
    """The name as a user gave it."""
    config: dict[str, Any] | None = None
    """Configuration of a new model; None: ``name`` is a folder or a hub name."""
    fingerprint: str = ""
    """Of an existing model (:func:`engine.models.fingerprint.model_fingerprint`); "": not known."""

    @property
    def identity(self) -> str:
        """The part of a run's name that says what it began with: the content counts, not the name alone."""
        return self.model_dump_json(exclude={"fingerprint"}) + self.fingerprint


def read_config(name: str, tokenizer: PreTrainedTokenizerBase) -> Origin:
    """Return the origin of a new model for a tokenizer.

    Args:
        name: a preset or the path of a config.json.
        tokenizer: gives the vocabulary's size, and the tokens for begin and end.

    Raises:
        UserError: no such preset or file, or its vocabulary is too small.
    """
    config = COMMON | PRESETS[name] if name in PRESETS else config_read_from(name)
    config.setdefault("vocab_size", len(tokenizer))
    config |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    origin = Origin(name=name, config=config)
    check(config_of(origin), name, tokenizer)
    return origin


def config_read_from(path: str) -> dict[str, Any]:
    """Return the content of a config.json.

    Raises:
        UserError: there is none that can be read, or it names no family.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--init-from-config {path}: neither one of {', '.join(PRESETS)} nor a config.json that can "
            f"be read ({error})"
        ) from None
    if not isinstance(config, dict) or "model_type" not in config:
        raise UserError(f"--init-from-config {path}: no model_type in it, as a config.json has")
    return config


def existing(name: str) -> Origin:
    """Return the origin of a model that exists, with what its files hold now.

    Raises:
        UserError: there is no such model.
    """
    return Origin(name=name, fingerprint=model_fingerprint(name, ROLE))


def config_of(origin: Origin) -> PreTrainedConfig:
    """Return the configuration of a model that exists, or is to be begun.

    Raises:
        UserError: there is no such model, or no such family.
    """
    if origin.config is None:
        return NamedModel.open(origin.name, ROLE).config()
    from transformers import AutoConfig

    try:
        rest = {k: v for k, v in origin.config.items() if k != "model_type"}
        return AutoConfig.for_model(origin.config["model_type"], **rest)
    except (OSError, ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--init-from-config {origin.name}: this configuration cannot be used ({reason})"
        ) from None


def parameters_of(config: PreTrainedConfig) -> int:
    """Return how many parameters a model of a configuration has, tied ones once; none is made or read."""
    return shape_of(config).parameters


def shape_of(config: PreTrainedConfig) -> ModelShape:
    """Return the sizes that the memory of a training depends on; no weight is made or read."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    sizes = [parameter.numel() for parameter in model.parameters()]
    hidden = config.hidden_size
    inner = next((n for name in _INNER if (n := getattr(config, name, None))), 4 * hidden)
    return ModelShape(sum(sizes), max(sizes), hidden, inner, config.num_hidden_layers, config.vocab_size)


def trained_of(config: PreTrainedConfig, settings: LmSettings, label: str) -> int:
    """Return how many parameters of a model learn: all, or those of its adapters; no weight is made or read.

    Raises:
        UserError: it has no such layers to adapt.
    """
    if not settings.lora:
        return parameters_of(config)
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        adapt(model, settings, label)
    return sum(map(elements, learning(model).values()))


def packed_of(config: PreTrainedConfig, settings: LmSettings) -> int:
    """Return how many parameters of a model are held in 4 bits; no weight is made or read."""
    if not settings.quantize:
        return 0
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(layer.weight.numel() for layer in linear_layers(model).values())


_INNER = ("intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner", "d_ff")
"""The families' names of the width of their feed-forward layers; the others have four times the states'."""


def check(config: Any, name: str, tokenizer: PreTrainedTokenizerBase, block: int = 0) -> None:
    """Refuse a model that does not continue texts, and a tokenizer or a size of block that it cannot take.

    Raises:
        UserError: says which of them, and the limit.
    """
    check_language_model(f"the model {name!r}", config)
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer has {len(tokenizer)} tokens, the model {name!r} embeddings for "
            f"{config.vocab_size}: use the model's own (leave --tokenizer out), or begin a new model"
        )
    check_embeddings(f"the model {name!r}", tokenizer, config.vocab_size)
    most = text_positions(config)
    if most and block > most:
        raise UserError(f"--block {block}: the model {name!r} takes {most} tokens at most")


def open_model(
    origin: Origin, seed: int, layout: EngineLayout | None = None, device: torch.device | None = None
) -> Any:
    """Return a model in float32: read from safetensors (no remote code), or begun from a seed.

    At ZeRO stage 3 all workers call it and each gets its share (:func:`is_shared` says so): of a model that
    exists, unless transformers has to put its weights together, and then it is whole in each of them first.

    Args:
        origin: of the model.
        seed: of a new one's weights, which are the same in every layout.
        layout: of the run; None: no worker shares the weights.
        device: where the worker trains.

    Raises:
        UserError: it cannot be loaded, is no causal language model, or has been changed.
    """
    from transformers import AutoModelForCausalLM

    shared = layout if layout and layout.zero_stage == 3 else None
    device = device or torch.device("cpu")
    if origin.config is None:
        check_unchanged(origin.name, origin.fingerprint, ROLE)
        named = NamedModel.open(origin.name, ROLE)
        model = read_partitioned(named, named.config(), shared, device) if shared else None
        return named.model(AutoModelForCausalLM, torch.float32) if model is None else model
    config = config_of(origin)
    try:
        if shared:
            return begin_partitioned(config, seed, shared, device)
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--init-from-config {origin.name}: no language model can be begun from it ({reason})"
        ) from None


def is_shared(model: nn.Module) -> bool:
    """Return whether each worker holds its share of a model, and none all of it."""
    return any(hasattr(parameter, "ds_tensor") for parameter in model.parameters())


def shallow(config: PreTrainedConfig, layers: int = 2) -> Any:
    """Return a new model on the CPU like one of a configuration, but with its first layers alone.

    It runs the same code of the family as the whole one: enough to compare ways of running it.
    """
    from transformers import AutoModelForCausalLM

    described, deep = copy.deepcopy(config), config.num_hidden_layers
    for name, value in vars(config).items():
        # Kinds of layers, one a layer.
        if isinstance(value, list) and len(value) == deep:
            setattr(described, name, value[:layers])
    described.num_hidden_layers = min(layers, deep)
    return AutoModelForCausalLM.from_config(described, dtype=torch.float32)


def stored_dtype(origin: Origin) -> torch.dtype:
    """Return the type that the trained weights are stored in: 16 bits if the model came in them."""
    dtype = getattr(config_of(origin), "dtype", None) if origin.config is None else None
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def write_model(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype, first: bool
) -> None:
    """Write a trained model as a Hugging Face folder; all workers call it, the ``first`` writes.

    Weights come out of the partitioned optimiser one by one, so the model need not fit twice. Adapters are
    merged into the weights beside which they learnt.
    """
    writer = ShardWriter(folder, dtype) if first else None
    for name, tensor in merged_weights(model) if is_adapted(model) else full_weights(model):
        if writer:
            writer.add(name, tensor)
    if not writer:
        return
    for name, tensor in kept_buffers(model):
        writer.add(name, tensor, as_it_is=True)
    writer.close()
    _name_shards(folder, writer.files)
    described: Any = model
    described.config.dtype = str(dtype).removeprefix("torch.")
    described.config.architectures = [type(model).__name__]
    described.config.save_pretrained(folder)
    described.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _name_shards(folder: Path, files: list[list[str]]) -> None:
    """Give shards the names that transformers looks for, and an index if there are several."""
    if len(files) == 1:
        (folder / shard_name(0)).rename(folder / "model.safetensors")
        return
    places: dict[str, str] = {}
    for number, names in enumerate(files):
        called = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
        (folder / shard_name(number)).rename(folder / called)
        places |= dict.fromkeys(names, called)
    size = sum(path.stat().st_size for path in folder.glob("model-*.safetensors"))
    index = {"metadata": {"total_size": size}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
