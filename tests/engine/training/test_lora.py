"""Adapters: what learns, what is written, and that merged and unmerged are the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from engine.errors import UserError
from engine.generation.model import LanguageModel
from engine.models.adapters import Base
from engine.models.fingerprint import model_fingerprint
from engine.training.layout import Layout
from engine.training.lm import LmTraining
from engine.training.lm_models import Origin, open_model, write_model
from engine.training.lora import adapt, is_adapted, write_adapter
from engine.training.settings import LmSettings, named_settings
from tests.support.adapters import DATA, HELD, SETTINGS, logits, train_adapters
from tests.support.language_models import tiny_model, tiny_tokenizer
from tests.support.token_blocks import VOCABULARY


@pytest.fixture(params=["gpt2", "llama"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """GPT-2 keeps its matrices the other way round (Conv1D)."""
    tiny_model(request.param, VOCABULARY).model.save_pretrained(tmp_path / "base")
    tiny_tokenizer(VOCABULARY).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def trained(
    base: Path, stage: int = 1, checkpoint: Path | None = None, save: Path | None = None
) -> LmTraining:
    layout = Layout.model_validate({"zero_stage": stage})
    model = open_model(Origin(name=str(base)), 0, layout)
    return train_adapters(model, SETTINGS, layout, checkpoint, save)


def test_the_merged_model_computes_what_the_adapters_did(base: Path, tmp_path: Path) -> None:
    run = trained(base, save=tmp_path / "checkpoint")
    whole = AutoModelForCausalLM.from_pretrained(base)
    assert run.losses[0] == pytest.approx(LmTraining(whole, DATA, HELD, SETTINGS).train_on(_first(run))[0])
    assert run.losses[-1] < run.losses[0] - 0.01
    own = logits(run.model)
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    write_model(run.model, tiny_tokenizer(VOCABULARY), tmp_path / "lm", torch.float32, first=True)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    torch.testing.assert_close(logits(merged), own, rtol=1e-4, atol=1e-5)
    moved = {name for name, tensor in merged.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved
    assert all(name.endswith(("proj.weight", "fc.weight", "attn.weight")) for name in moved)
    # A checkpoint holds adapters alone, and a run goes on from it.
    with safe_open(tmp_path / "checkpoint" / "shard-00000-00000.safetensors", "pt") as file:
        assert all(".lora_" in name for name in file.keys())  # noqa: SIM118
    assert trained(base, checkpoint=tmp_path / "checkpoint").losses == run.losses


def _first(run: LmTraining) -> Any:
    return run.batches(0)[0]


def test_a_model_that_workers_share_learns_and_merges_the_same(base: Path, tmp_path: Path) -> None:
    runs = {stage: trained(base, stage) for stage in (1, 3)}
    np.testing.assert_allclose(runs[3].losses, runs[1].losses, rtol=1e-5)
    states = {}
    for stage, run in runs.items():
        write_model(run.model, tiny_tokenizer(VOCABULARY), tmp_path / f"{stage}", torch.float32, first=True)
        states[stage] = AutoModelForCausalLM.from_pretrained(tmp_path / f"{stage}").state_dict()
    for name, tensor in states[1].items():
        torch.testing.assert_close(states[3][name], tensor, rtol=1e-4, atol=1e-5)


def test_a_kept_adapter_is_merged_when_it_is_loaded(base: Path, tmp_path: Path) -> None:
    run = trained(base)
    (tmp_path / "lm").mkdir()
    about = Base(name=str(base), fingerprint=model_fingerprint(str(base)))
    write_adapter(run.model, about, tiny_tokenizer(VOCABULARY), tmp_path / "lm", first=True)
    size = (tmp_path / "lm" / "adapter_model.safetensors").stat().st_size
    assert size < (base / "model.safetensors").stat().st_size / 2
    loaded = LanguageModel.load(tmp_path / "lm")
    assert not is_adapted(loaded.model)
    torch.testing.assert_close(logits(loaded.model), logits(run.model), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="it is an adapter, not a model"):
        open_model(Origin(name=str(tmp_path / "lm")), 0)
    (base / "config.json").write_text(
        json.dumps(json.loads((base / "config.json").read_text()) | {"bos_token_id": 5})
    )
    with pytest.raises(UserError, match="the base of the adapter"):
        LanguageModel.load(tmp_path / "lm")
    (tmp_path / "lm" / "base_model.json").unlink()
    with pytest.raises(UserError, match=r"without base_model\.json"):
        LanguageModel.load(tmp_path / "lm")


def test_layers_that_are_not_there_are_named(base: Path) -> None:
    model = open_model(Origin(name=str(base)), 0)
    wrong = SETTINGS.model_copy(update={"lora_targets": "nothing,at_all"})
    with pytest.raises(UserError, match=r"it: --lora-targets nothing,at_all: .*its linear layers are "):
        adapt(model, wrong, "it")
    embeddings = "wte" if hasattr(model, "transformer") else "embed_tokens"
    with pytest.raises(UserError, match="is no linear layer"):
        adapt(model, SETTINGS.model_copy(update={"lora_targets": embeddings}), "it")


def test_names_of_runs_without_adapters_are_what_they_were() -> None:
    assert not [name for name in LmSettings().model_dump() if "lora" in name or "adapter" in name]
    assert LmSettings(lora=True, lora_rank=4).model_dump()["lora_rank"] == 4
    assert "lora" not in named_settings(LmSettings())
    assert '"lora":true,"lora_rank":4' in named_settings(LmSettings(lora=True, lora_rank=4))
