"""Tiny text encoders with random weights, and a tokenizer made in memory: no file from outside."""

from __future__ import annotations

import copy
import string
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from engine.models.text import TextEncoder

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
LETTERS = string.ascii_letters + string.digits + string.punctuation
POSITIONS = 128


@cache
def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of single ASCII letters."""
    tokens = [*SPECIAL.values(), *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces = models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token=SPECIAL["unk_token"])
    tokenizer = Tokenizer(pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **SPECIAL)


def write_encoder(folder: Path, dim: int = 16, seed: int = 0) -> None:
    """Write a BERT of two layers with states of ``dim`` (even) numbers, and its tokenizer."""
    torch.manual_seed(seed)
    tokenizer = letter_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=POSITIONS,
        initializer_range=0.2,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


PLURALS = ("cats", "dogs", "tools", "towns")
"""Words that the tiny masked language model may give a class."""


def write_masked_lm(folder: Path, dim: int = 16, seed: int = 0, tied: bool = True) -> None:
    """Write a BERT of two layers with its masked-language-model head, every weight drawn at random.

    Its tokens are those of :func:`letter_tokenizer` and some plurals, to which the head's biases lean. The
    decoder is the word embeddings, or (not ``tied``) has rows of its own.
    """
    torch.manual_seed(seed)
    tokenizer = copy.deepcopy(letter_tokenizer())
    tokenizer.add_tokens(list(PLURALS))
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dim,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=tied,
    )
    model = BertForMaskedLM(config)
    draw_weights(model)
    with torch.no_grad():
        model.cls.predictions.decoder.bias[-len(PLURALS) :] += 3
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def random_encoder(kind: str, layers: int = 3, dim: int = 48) -> TextEncoder:
    """Return a "bert" or a "roberta" with states of ``dim`` numbers, every weight drawn at random."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 2 * dim,
        "vocab_size": 20_000,
    }
    model = (
        BertModel(BertConfig(**sizes), add_pooling_layer=False)
        if kind == "bert"
        else RobertaModel(RobertaConfig(**sizes, pad_token_id=0), add_pooling_layer=False)
    )
    draw_weights(model)
    return TextEncoder(model)


SPECIAL_IDS = {"pad_token_id": 0, "unk_token_id": 1, "cls_token_id": 2, "sep_token_id": 3, "mask_token_id": 4}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "deberta-v2": {  # DeBERTa-v3's, and the convolution of the largest DeBERTa-v2
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "conv_kernel_size": 3,
    },
    "electra": {"embedding_size": 8},
    "eurobert": {"num_key_value_heads": 1},
    # Two of three layers see 4 tokens to either side; the last is one of them.
    "modernbert": {"local_attention": 8},
}
"""What makes a tiny model of a family have all that the family's large ones have."""


def tiny_model(kind: str, dim: int = 16, vocab_size: int = 0) -> PreTrainedModel:
    """Return a model of three layers of a family, every weight drawn at random, dropout on in training."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=vocab_size or len(letter_tokenizer()),
        hidden_size=dim,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=2 * dim,
        max_position_embeddings=POSITIONS,
        bos_token_id=SPECIAL_IDS["cls_token_id"],
        eos_token_id=SPECIAL_IDS["sep_token_id"],
        **SPECIAL_IDS,
        **OF_FAMILY.get(kind, {}),
    )
    model = AutoModel.from_config(config)
    draw_weights(model)
    return model


def draw_weights(module: nn.Module, std: float = 0.2) -> None:
    """Draw every weight at random: biases start at zero, and a mistake in one would not show."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=std)
