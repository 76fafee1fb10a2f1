"""Families of language models: what is computed here is what each computes itself, or it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.errors import UserError
from engine.generation.forward_check import as_it_was, check_forward
from engine.generation.model import LanguageModel
from engine.generation.tree_pass import takes_tree_masks
from engine.generation.trie import Trie
from engine.generation.trie_scores import name_logprobs
from engine.models.fit import check_language_model
from engine.models.hub import NamedModel
from engine.training.lm_models import write_model
from tests.support.causal_families import EXACT, REFUSED, VOCABULARY, tiny_causal_model, tiny_config
from tests.support.language_models import tiny_tokenizer

NAMES = ["France", "San Marino", "San Jose", "San Jose City", "the river Rhine"]


def loaded(kind: str) -> LanguageModel:
    return LanguageModel(tiny_causal_model(kind), tiny_tokenizer(VOCABULARY), kind)


@pytest.mark.parametrize("kind", EXACT)
def test_a_family_scores_names_as_its_own_forward_pass_does(kind: str) -> None:
    model = loaded(kind)
    check_language_model("x", model.model.config)
    check_forward(model, "x")
    sequences = model.encode_after([f" {name}.\n" for name in NAMES], "and")
    prompt = model.encode("Spain, Portugal and")
    (found,) = name_logprobs(model, [prompt], [Trie.build(sequences)], "vocabulary")
    for sequence, logprob in zip(sequences, found.logprobs.tolist(), strict=True):
        with torch.inference_mode():
            logits_TV = model.model(input_ids=torch.tensor([[*prompt, *sequence]])).logits[0].float()
        after_TV = logits_TV[len(prompt) - 1 : -1].log_softmax(-1)
        assert logprob == pytest.approx(float(after_TV[range(len(sequence)), sequence].sum()), rel=1e-4)


@pytest.mark.parametrize("kind", REFUSED)
def test_a_model_that_does_not_work_is_refused_by_name(kind: str) -> None:
    def check() -> None:
        check_language_model("x", tiny_config(kind))
        check_forward(loaded(kind), "x")

    with pytest.raises(UserError, match=f"^x: a model of type '{kind}' {REFUSED[kind][1]}.*name a causal"):
        check()


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_vl", "llama4"])
def test_a_multi_modal_model_gets_a_clear_word(kind: str) -> None:
    with pytest.raises(UserError, match=f"type '{kind}' reads more than text.*write its text part alone"):
        check_language_model("x", tiny_config(kind))


def test_which_families_take_trees_in_one_row() -> None:
    for kind, takes in {
        "llama": True,
        "gpt2": True,
        "bloom": False,
        "gpt_neo": False,
        "gemma2": True,
    }.items():
        model = loaded(kind)
        check_forward(model, "x")
        assert takes_tree_masks(model, 6) is takes, kind
    assert not takes_tree_masks(model, 7), "longer than its window"


def test_trees_go_level_by_level_where_a_mask_is_not_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama")
    run = model.body.forward

    def careless(**given: object) -> object:
        mask = given.get("attention_mask")
        return run(**given | ({"attention_mask": None} if getattr(mask, "ndim", 0) == 4 else {}))

    monkeypatch.setattr(model.body, "forward", careless)
    model.takes_positions = True
    check_forward(model, "x")
    assert not model.takes_tree_masks


def test_what_differs_by_a_little_is_refused_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model = loaded("llama")
    monkeypatch.setattr(
        model, "logits", lambda hidden, tokens=None: 1.01 * LanguageModel.logits(model, hidden, tokens)
    )
    with pytest.raises(UserError, match=r"computes something else from its body's hidden states.*1\.\d%"):
        check_forward(model, "x")
    broken = loaded("llama")
    broken.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(UserError, match="not finite numbers"):
        check_forward(broken, "x")


@pytest.mark.parametrize("kind", ["deepseek_v3", "gemma4_text", "glm4_moe", "llama"])
def test_a_written_model_keeps_its_whole_state(kind: str, tmp_path: Path) -> None:
    model, ids = tiny_causal_model(kind), torch.arange(12)[None]
    write_model(model, tiny_tokenizer(VOCABULARY), tmp_path, torch.float32, first=True)
    again = NamedModel.open(tmp_path, "x").model(AutoModelForCausalLM, torch.float32).eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    with torch.inference_mode():
        np.testing.assert_array_equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_model_that_is_checked_before_its_training_learns_as_before() -> None:
    model = tiny_causal_model("llama").train()
    model.lm_head.weight.requires_grad_(False)
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with as_it_was(model):
        check_forward(LanguageModel(model, tiny_tokenizer(VOCABULARY), ""), "x")
        assert not model.training
    assert model.training
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
