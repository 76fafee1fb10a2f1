"""A base in 4 bits beside adapters: what learns, what is written, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from engine.errors import UserError
from engine.training import optimizer, quantized
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import Origin, config_of, open_model, packed_of, write_model
from engine.training.memory import LLAMA_2, worker_memory
from engine.training.partitioned import elements
from engine.training.quantized import (
    BYTES_A_NUMBER,
    FACTOR_BYTES,
    check_installed,
    dequantized,
    quantize,
    quantized_weights,
)
from engine.training.settings import named_settings
from tests.support.adapters import SETTINGS as PLAIN
from tests.support.adapters import logits, train_adapters
from tests.support.language_models import tiny_model, tiny_tokenizer
from tests.support.token_blocks import VOCABULARY

SETTINGS = PLAIN.model_copy(update={"quantize": "4bit"})


@pytest.fixture
def all_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let stage 3 share small parameters, too, and let go of them after each use; else it keeps them."""
    plain = optimizer.zero_config
    shared = {"param_persistence_threshold": 0, "max_live_parameters": 0, "max_reuse_distance": 0}
    shared = {f"stage3_{name}": value for name, value in shared.items()}
    monkeypatch.setattr(optimizer, "zero_config", lambda layout: plain(layout) | shared)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **shape)
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def opened(base: Path, layout: Layout | None = None) -> Any:
    model = open_model(Origin(name=str(base)), 0)
    quantize(model, "it", getattr(torch, (layout or Layout()).weights))
    return model


def trained(
    base: Path, checkpoint: Path | None = None, save: Path | None = None, **spread: Any
) -> LmTraining:
    layout = Layout.model_validate(spread)
    return train_adapters(opened(base, layout), SETTINGS, layout, checkpoint, save)


def merged_model(run: LmTraining, folder: Path) -> Any:
    write_model(run.model, tiny_tokenizer(VOCABULARY), folder, torch.float32, first=True)
    return AutoModelForCausalLM.from_pretrained(folder)


def test_the_merged_model_computes_what_the_adapters_did_and_a_run_goes_on(
    base: Path, tmp_path: Path, all_shared: None
) -> None:
    run = trained(base, save=tmp_path / "checkpoint")
    assert run.losses[-1] < run.losses[0] - 0.01
    own = logits(run.model)
    merged = merged_model(run, tmp_path / "lm")
    torch.testing.assert_close(logits(merged), own, rtol=1e-3, atol=1e-4)
    assert merged.state_dict().keys() == AutoModelForCausalLM.from_pretrained(base).state_dict().keys()
    for stage in (2, 3):
        again = trained(base, tmp_path / "checkpoint", zero_stage=stage)
        np.testing.assert_allclose(again.losses, run.losses, rtol=1e-5)
    assert not any(parameter.numel() for parameter in quantized_weights(again.model).values()), "shared"
    other = merged_model(again, tmp_path / "lm-3").state_dict()
    for name, tensor in merged.state_dict().items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-4, atol=1e-5)


def test_shared_packed_weights_are_left_as_they_are_where_others_are_narrow(
    base: Path, all_shared: None
) -> None:
    spread: dict[str, Any] = {"zero_stage": 3, "activation_checkpointing": True}
    run, narrow = trained(base, **spread), trained(base, weights="bfloat16", **spread)
    assert narrow.losses != run.losses
    np.testing.assert_allclose(narrow.losses, run.losses, rtol=2e-3)


def test_each_weight_is_the_nearest_of_sixteen_numbers_times_its_blocks_largest(base: Path) -> None:
    plain = dict(open_model(Origin(name=str(base)), 0).named_parameters())
    packed = quantized_weights(opened(base))
    assert packed.keys() == {n for n in plain if n.endswith("proj.weight")}, "no embeddings, no output layer"
    for name, parameter in packed.items():
        blocks = dequantized(parameter).detach().reshape(-1, 64)
        largest = blocks.abs().amax(1, keepdim=True)
        assert len((blocks / largest).mul(1e4).round().unique()) <= 16
        was = plain[name].detach().reshape(-1, 64)
        torch.testing.assert_close(largest, was.abs().amax(1, keepdim=True), rtol=0.05, atol=1e-4)
        assert ((blocks - was).abs() <= 0.2 * largest).all(), "the widest gap of NF4 is 0.30"
        assert elements(parameter) == plain[name].numel()
        assert parameter.numel() == plain[name].numel() // 8, "a float32 holds eight"


def test_the_memory_of_packed_weights_is_what_they_take(base: Path) -> None:
    config = config_of(Origin(name=str(base)))
    packed = quantized_weights(opened(base))
    assert packed_of(config, SETTINGS) == sum(map(elements, packed.values()))
    assert packed_of(config, PLAIN) == 0
    shape, layout = LLAMA_2["7B"], Layout()
    linear = 6_476_005_376
    wide = worker_memory(shape, layout, 1, 1, 256, True, 40_000_000)
    small = worker_memory(shape, layout, 1, 1, 256, True, 40_000_000, packed=linear)
    assert wide.weights - small.weights == pytest.approx((4 - BYTES_A_NUMBER) * linear)
    layout = Layout(zero_stage=3, activation_checkpointing=True)
    shared = worker_memory(shape, layout, 8, 1, 256, True, 40_000_000, packed=linear)
    assert shared.weights == pytest.approx(
        4 * (shape.parameters - linear) / 8 + linear * (0.5 / 8 + FACTOR_BYTES), rel=1e-6
    )
    paper = pytest.approx(4.127 / 8, rel=1e-3)  # Dettmers et al. 2023, section 3
    assert paper == BYTES_A_NUMBER


def test_what_cannot_be_is_refused_by_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantized, "PACKAGE", "no_such_package")
    with pytest.raises(UserError, match=r"needs no_such_package, .* pip install 'seedset\[qlora\]'"):
        check_installed()
    with pytest.raises(UserError, match="it: --quantize 4bit: it has no linear layers"):
        quantize(tiny_model("gpt2", VOCABULARY).model, "it")
    with pytest.raises(UserError, match=r"q_proj takes 32 numbers, no multiple of 64"):
        quantize(tiny_model("llama", VOCABULARY).model, "it")


def test_runs_that_exist_keep_their_names() -> None:
    assert "quantize" not in named_settings(PLAIN)
    assert named_settings(SETTINGS) != named_settings(PLAIN)
