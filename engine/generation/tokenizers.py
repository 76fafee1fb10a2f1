"""Load the tokenizer of a language model, or train one on a corpus."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.models.hub import NamedModel
from engine.models.plain_text import token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BEGIN, END = "<s>", "</s>"

SMALLEST_VOCABULARY = 258
"""Every byte, and two special tokens."""


def load_tokenizer(name: str | os.PathLike[str], role: str = "tokenizer") -> PreTrainedTokenizerBase:
    """Return the tokenizer of a folder, local or in a bucket, or a hub name (:class:`NamedModel`).

    Args:
        name: as a user gave it.
        role: the option that named it, for errors.

    Raises:
        UserError: there is none, or it is not a fast one.
    """
    return NamedModel.open(name, role).fast_tokenizer()


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 over everything that decides which ids a text gets.

    Take it before the first use: a call leaves its truncation and padding in the tokenizer, where a saved one
    may have had others.
    """
    content = f"{tokenizer.bos_token_id}{tokenizer.backend_tokenizer.to_str()}"
    return hashlib.sha256(content.encode()).hexdigest()


def encode_after(tokenizer: Any, texts: Sequence[str], before: str) -> list[list[int]]:
    """Return the tokens of each text as they are right after the word ``before``.

    Tokenizers treat the start of a text in their own ways, so both are tokenised together and the
    tokens of ``before`` taken off.

    Raises:
        UserError: the tokenizer joins a text with the word before it.
    """
    tokens = token_ids(tokenizer, [before + text for text in texts])
    (first,) = token_ids(tokenizer, [before])
    for text, ids in zip(texts, tokens, strict=True):
        if ids[: len(first)] != first:
            raise UserError(
                f"the tokenizer makes other tokens of {before!r} where {text[:40]!r} follows it, so a name "
                "has none of its own; name another tokenizer"
            )
    return [ids[len(first) :] for ids in tokens]


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> None:
    """Train a byte-level BPE and write it as a Hugging Face folder; the same texts give the same one.

    Args:
        texts: what it is made for.
        vocab_size: tokens at most, two special ones among them; few texts may yield fewer.
        folder: receives ``tokenizer.json`` and ``tokenizer_config.json``.

    Raises:
        UserError: the size has no room for the bytes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab_size < SMALLEST_VOCABULARY:
        raise UserError(f"--vocab-size {vocab_size}: at least {SMALLEST_VOCABULARY}, for all bytes")
    bpe: Any = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=BEGIN, eos_token=END, clean_up_tokenization_spaces=False
    )
    tokenizer.save_pretrained(folder)
