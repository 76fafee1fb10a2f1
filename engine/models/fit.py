"""Check that a text model, its tokenizer and what is wanted of them fit, before anything is computed.

An id beyond the embeddings, or a token beyond the positions, is an index error in the middle of the work, and
a tokenizer of the wrong model gives states of nothing. Every error names the model and the way out.

Imports no model library itself: a job's ``--help`` must not wait for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.models.families import family_of, position_limit
from engine.models.hub import NamedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SAVE_ITS_OWN = "write the model's own tokenizer into its folder with save_pretrained"


def check_encoder(
    named: NamedModel, tokenizer: PreTrainedTokenizerBase, length: int, option: str = "--max-length"
) -> None:
    """Check that an encoder is of a family that works, and that its tokenizer and its settings fit it.

    Args:
        named: the model; its weights are not read.
        tokenizer: the model's, with a mask token (:func:`engine.corpus.inputs.masking.load_tokenizer`).
        length: tokens of an input at most, special ones included.
        option: what set that, for errors.

    Raises:
        UserError: what does not fit.
    """
    config = named.config()
    family_of(config.model_type, named.label)
    if config.num_hidden_layers < 2:
        raise UserError(f"{named.label}: one layer only, so nothing would be frozen; name a deeper encoder")
    check_tokenizer(named.label, tokenizer, config.vocab_size)
    limit = position_limit(config)
    if length > limit:
        raise UserError(
            f"{named.label}: inputs of {length} tokens, and it has positions for {limit}; give {option} "
            f"{limit} or less, or name another model"
        )
    from engine.models.sentence_settings import read_settings

    read_settings(named)  # which refuses what it does not know


def check_tokenizer(label: str, tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    """Check that a tokenizer has tokens, a model an embedding of each, and that batches can be padded.

    On which side it would pad makes no difference: inputs are padded behind their last token everywhere.

    Args:
        label: the begin of an error.
        tokenizer: of a model that reads whole texts.
        embeddings: tokens that the model knows.

    Raises:
        UserError: what is missing.
    """
    check_vocabulary(label, tokenizer)
    largest = max(tokenizer.get_vocab().values())
    if largest >= embeddings:
        raise UserError(
            f"{label}: its tokenizer makes tokens up to number {largest}, and it has embeddings for "
            f"{embeddings}; {_SAVE_ITS_OWN}, or enlarge the model with resize_token_embeddings"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{label}: its tokenizer has no padding token; name one (tokenizer.pad_token = ...) and write it "
            "again with save_pretrained"
        )


def check_vocabulary(label: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that a tokenizer has tokens besides its special ones.

    Args:
        label: the begin of an error.
        tokenizer: of any text model.

    Raises:
        UserError: it has none.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise UserError(
            f"{label}: its tokenizer has no vocabulary, nothing but {len(tokenizer)} special tokens; "
            f"{_SAVE_ITS_OWN}"
        )


def unknown_tokens(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[int]:
    """Return how many tokens of each text stand for something that the vocabulary does not have.

    Args:
        tokenizer: that made the ids; one that spells any text out in bytes has no such token.
        ids: of each text.
    """
    unknown = tokenizer.unk_token_id
    return [0 if unknown is None else list(one).count(unknown) for one in ids]
