"""Open a language model to train: an existing one, or a new one of a preset or a configuration file.

A model that is begun here gets random weights from a seed, so that every worker begins with the same.
"""

from __future__ import annotations

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
from engine.training.partitioned import ShardWriter, full_weights, kept_buffers, shard_name

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
    if name in PRESETS:
        config = COMMON | PRESETS[name]
    else:
        try:
            config = json.loads(Path(name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(
                f"--init-from-config {name}: neither one of {', '.join(PRESETS)} nor a config.json that can "
                f"be read ({error})"
            ) from None
        if not isinstance(config, dict) or "model_type" not in config:
            raise UserError(f"--init-from-config {name}: no model_type in it, as a config.json has")
    config.setdefault("vocab_size", len(tokenizer))
    config |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    origin = Origin(name=name, config=config)
    check(config_of(origin), name, tokenizer)
    return origin


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
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return sum(parameter.numel() for parameter in model.parameters())


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


def open_model(origin: Origin, seed: int) -> Any:
    """Return a model in float32: read from safetensors (no remote code), or begun from a seed.

    Raises:
        UserError: it cannot be loaded, is no causal language model, or has been changed.
    """
    from transformers import AutoModelForCausalLM

    if origin.config is None:
        check_unchanged(origin.name, origin.fingerprint, ROLE)
        return NamedModel.open(origin.name, ROLE).model(AutoModelForCausalLM, torch.float32)
    config = config_of(origin)
    torch.manual_seed(seed)
    try:
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--init-from-config {origin.name}: no language model can be begun from it ({reason})"
        ) from None


def stored_dtype(origin: Origin) -> torch.dtype:
    """Return the type that the trained weights are stored in: 16 bits if the model came in them."""
    dtype = getattr(config_of(origin), "dtype", None) if origin.config is None else None
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def write_model(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype, first: bool
) -> None:
    """Write a trained model as a Hugging Face folder; all workers call it, the ``first`` writes.

    Weights come out of the partitioned optimiser one by one, so the model need not fit twice.
    """
    writer = ShardWriter(folder, dtype) if first else None
    for name, tensor in full_weights(model):
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
