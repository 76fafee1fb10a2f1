from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from engine.errors import UserError
from engine.generation.forward_check import check_forward
from engine.generation.model import LanguageModel
from engine.models.hub import NamedModel
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import (
    Origin,
    check,
    config_of,
    open_model,
    parameters_of,
    read_config,
    shallow,
    stored_dtype,
    write_model,
)
from engine.training.partitioned_model import weight_files
from engine.training.settings import LmSettings
from tests.support.causal_families import VOCABULARY as CAUSAL_VOCABULARY
from tests.support.causal_families import tiny_causal_model
from tests.support.language_models import tiny_model, tiny_tokenizer
from tests.support.token_blocks import VOCABULARY, random_blocks


def wrapped(model: Any, zero_stage: int = 1) -> Any:
    """The model as it is in a training: split up by DeepSpeed."""
    layout = Layout.model_validate({"zero_stage": zero_stage})
    LmTraining(model, random_blocks(), random_blocks(), LmSettings(precision="float32"), layout)
    return model


def test_parameters_are_counted_once_where_they_are_tied() -> None:
    model = tiny_model("gpt2", VOCABULARY).model
    assert parameters_of(model.config) == sum(p.numel() for p in model.parameters())


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A folder with a bfloat16 GPT-2, whose output layer is tied."""
    tiny_model("gpt2", VOCABULARY).model.to(torch.bfloat16).save_pretrained(tmp_path / "base")
    tiny_tokenizer(VOCABULARY).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.parametrize("zero_stage", [1, 3])
def test_a_written_model_is_the_one_that_was_read(zero_stage: int, saved: Path, tmp_path: Path) -> None:
    origin = Origin(name=str(saved))
    model = open_model(origin, 0)
    assert model.dtype == torch.float32
    assert stored_dtype(origin) == torch.bfloat16
    tokenizer = AutoTokenizer.from_pretrained(saved)
    write_model(wrapped(model, zero_stage), tokenizer, tmp_path / "lm", stored_dtype(origin), first=True)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "lm", use_safetensors=True)
    before = AutoModelForCausalLM.from_pretrained(saved, use_safetensors=True)
    assert again.dtype == torch.bfloat16
    assert again.config.architectures == ["GPT2LMHeadModel"]
    for name, tensor in before.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert len(AutoTokenizer.from_pretrained(tmp_path / "lm")) == VOCABULARY


def test_a_large_model_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.partitioned.SHARD_BYTES", 30_000)
    tokenizer = tiny_tokenizer(VOCABULARY)
    model = open_model(read_config("tiny", tokenizer), seed=1)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write_model(wrapped(model), tokenizer, tmp_path, torch.float32, first=True)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    again = AutoModelForCausalLM.from_pretrained(tmp_path, use_safetensors=True).state_dict()
    for name, tensor in expected.items():
        assert torch.equal(again[name], tensor), name


def test_presets_begin_with_the_same_weights_everywhere() -> None:
    tokenizer = tiny_tokenizer(VOCABULARY)
    origin = read_config("tiny", tokenizer)
    first, again, other = (open_model(origin, seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    small = config_of(read_config("small", tokenizer))
    assert (small.vocab_size, small.bos_token_id, small.num_attention_heads) == (VOCABULARY, 0, 4)


def test_a_config_file_begins_any_family(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    path.write_text(json.dumps({"model_type": "qwen2", "num_key_value_heads": 2, **sizes}))
    tokenizer = tiny_tokenizer(VOCABULARY)
    model, blocks = open_model(read_config(str(path), tokenizer), seed=0), random_blocks()
    assert (type(model).__name__, model.config.vocab_size) == ("Qwen2ForCausalLM", VOCABULARY)
    settings = LmSettings(learning_rate=1e-2, epochs=5)
    losses = [step.loss for step in LmTraining(model, blocks, blocks, settings, Layout()).run()]
    assert losses[-1] < losses[0] - 0.1
    path.write_text(json.dumps({"model_type": "qwen2", "vocab_size": 100, **sizes}))
    with pytest.raises(UserError, match=r"300 tokens.*embeddings for 100"):
        read_config(str(path), tokenizer)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "neither one of tiny, small"), ("[]", "no model_type"), ('{"model_type": "x"}', "cannot be used")],
)
def test_a_config_that_is_none_is_named(content: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        read_config(str(tmp_path / "config.json"), tiny_tokenizer(VOCABULARY))


def test_what_does_not_fit_a_model_is_named(saved: Path) -> None:
    config = config_of(Origin(name=str(saved)))
    with pytest.raises(UserError, match=r"--block 512: the model 'x' takes 256"):
        check(config, "x", tiny_tokenizer(VOCABULARY), 512)
    with pytest.raises(UserError, match=r"320 tokens.*embeddings for 300"):
        check(config, "x", tiny_tokenizer(320))


def test_a_model_without_safetensors_is_refused(saved: Path, tmp_path: Path) -> None:
    weights = saved / "model.safetensors"
    weights.rename(saved / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        open_model(Origin(name=str(saved)), 0)
    with pytest.raises(UserError, match="nowhere: cannot be loaded"):
        config_of(Origin(name=str(tmp_path / "nowhere")))


@pytest.mark.parametrize("family", ["gpt2", "cohere2", "deepseek_v3", "exaone4", "mixtral", "qwen3_moe"])
def test_a_shallow_model_runs_the_family_as_the_deep_one(family: str) -> None:
    deep = tiny_causal_model(family)
    config = copy.deepcopy(deep.config)
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(config, name, value * 2)
    config.num_hidden_layers *= 2
    model = shallow(config)
    assert type(model) is type(deep)
    assert model.config.num_hidden_layers == deep.config.num_hidden_layers
    check_forward(LanguageModel(model, tiny_tokenizer(CAUSAL_VOCABULARY), ""), family)
    assert config.num_hidden_layers == 2 * deep.config.num_hidden_layers, "the given one is left alone"


def test_files_that_hold_each_weight_under_its_name_are_told_from_others(saved: Path, tmp_path: Path) -> None:
    named = NamedModel.open(str(saved), "--model")
    places = weight_files(named, named.config())
    assert places is not None
    ((path, names),) = places.items()
    assert path == saved / "model.safetensors"
    assert len(names) == len(dict(open_model(Origin(name=str(saved)), 0).named_parameters()))
    wider = named.config()
    wider.n_embd *= 2
    assert weight_files(named, wider) is None, "other shapes: transformers says which"
    mixture = tiny_causal_model("mixtral")
    mixture.save_pretrained(tmp_path / "mixture")
    named = NamedModel.open(str(tmp_path / "mixture"), "--model")
    assert weight_files(named, named.config()) is None, "experts lie apart in the file, together in the model"
