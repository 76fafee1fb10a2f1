"""Tiny causal language models with random weights, and a tokenizer made in memory: no file from outside."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from engine.generation.model import LanguageModel

Family = Literal["llama", "gpt2", "bloom"]

BOS, EOS = "<s>", "</s>"

TEXT = """
France, Spain, Portugal and Germany.
iron, copper, aluminum and zinc.
math, physics, chemistry and biology.
the river Rhine, the river Rhone and the river Danube.
San Marino, San Salvador, San Jose and Santiago are similar to San Diego.
They are all countries, metals, sciences, rivers and cities.
"""


@cache
def tiny_tokenizer(vocab: int = 320) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer: every text has tokens, common words of TEXT few of them.

    Args:
        vocab: tokens at most, at least 258 (all bytes, the begin and the end).
    """
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXT.splitlines(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=BOS, eos_token=EOS)


def tiny_model(family: Family = "llama", vocab: int = 320, seed: int = 0) -> LanguageModel:
    """Return a two-layer model of a family whose next-token distributions are far from flat.

    Args:
        family: with rotary positions and grouped queries (llama), learnt positions (gpt2) or ALiBi (bloom).
        vocab: rows of the embedding, at least 258.
        seed: of the weights; the same seed gives the same model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(_config(family, vocab), dtype=torch.float32)
    return LanguageModel(model, tiny_tokenizer(vocab), f"tiny-{family}-{vocab}-{seed}")


def _config(family: Family, vocab: int) -> PreTrainedConfig:
    common: dict[str, Any] = {
        "vocab_size": vocab,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "initializer_range": 0.2,
    }
    if family == "llama":
        return LlamaConfig(
            **common,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
        )
    if family == "gpt2":
        return GPT2Config(**common, n_embd=32, n_layer=2, n_head=4, n_positions=256)
    return BloomConfig(**common, hidden_size=32, n_layer=2, n_head=4)
