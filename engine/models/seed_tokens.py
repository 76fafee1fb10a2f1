"""Add the two tokens of the seed text, ``[POS_SEP]`` and ``[NEG_SEP]``, to an encoder and its tokenizer.

Contrastive learning reads a query's seeds behind each sentence (RetExpan, section 5.1.2), every positive seed
behind a ``[POS_SEP]``, every negative one behind a ``[NEG_SEP]``.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from engine.models.plain_text import token_ids
from engine.models.text import TextEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POS_SEP, NEG_SEP = "[POS_SEP]", "[NEG_SEP]"

_LIKE = {POS_SEP: "positive", NEG_SEP: "negative"}
"""The word that a token begins as."""


def has_seed_tokens(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Return whether a tokenizer has both tokens, as special ones."""
    return {POS_SEP, NEG_SEP} <= set(tokenizer.all_special_tokens)


def seed_token_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int]:
    """Return the ids of ``[POS_SEP]`` and of ``[NEG_SEP]`` in a tokenizer that has them."""
    vocabulary = tokenizer.get_vocab()
    return vocabulary[POS_SEP], vocabulary[NEG_SEP]


def with_seed_tokens(
    encoder: TextEncoder, tokenizer: PreTrainedTokenizerBase
) -> tuple[TextEncoder, PreTrainedTokenizerBase]:
    """Return an encoder and its tokenizer with both tokens; the tokenizer that was given stays as it is.

    Saved (:meth:`TextEncoder.save`, ``save_pretrained``) they are a folder like any other, and loaded again
    they have the tokens. The ids of other texts do not change. Where both have the tokens, nothing is done.

    The authors leave the rows of the new embeddings to the library, which draws them at random, and train
    them with the rest. Here the lower layers may be frozen, and the rows would stay as they were drawn. So a
    row begins as the mean of the rows of the token that ends a sentence and of the words "positive" or
    "negative": a boundary of that kind, the same in every process, and the two are told apart untrained.

    Args:
        encoder: whose embeddings are enlarged in place.
        tokenizer: its own, a fast one.
    """
    if has_seed_tokens(tokenizer):
        return encoder, tokenizer
    model, enlarged = encoder.model, copy.deepcopy(tokenizer)
    ends = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    words = token_ids(tokenizer, [f" {word}" for word in _LIKE.values()])
    # Added to those there are: a family that lists further special tokens keeps them.
    enlarged.add_special_tokens({"extra_special_tokens": list(_LIKE)}, replace_extra_special_tokens=False)
    own = seed_token_ids(enlarged)
    rows = int(model.get_input_embeddings().weight.shape[0])
    if max(own) >= rows:  # some models have more rows than tokens: these are never cut off
        model.resize_token_embeddings(max(own) + 1, mean_resizing=False)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        for token, word in zip(own, words, strict=True):
            weight[token] = (weight[ends] + weight[word].mean(dim=0)) / 2
    # Taken apart anew: parts that were made before hold the former embeddings.
    return TextEncoder(model), enlarged
