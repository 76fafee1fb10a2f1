"""Check that a text model, its tokenizer and what is wanted of them fit, before anything is computed.

An id beyond the embeddings, or a token beyond the positions, is an index error in the middle of the work, and
a tokenizer of the wrong model gives states of nothing. Every error names the model and the way out.

Imports no model library itself: a job's ``--help`` must not wait for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engine.errors import UserError
from engine.models.families import FAMILIES, family_of, position_limit
from engine.models.hub import SAVE_ITS_TOKENIZER, NamedModel

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LANGUAGE_MODELS = "a causal language model of text, such as a Llama, Qwen, Mistral, Gemma or GPT-2"
"""What works where names are generated, for errors."""


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


def check_language_model(label: str, config: Any) -> None:
    """Check that a model continues texts, by its configuration.

    That it computes what is asked of it only its weights show (:mod:`engine.generation.forward_check`).

    Args:
        label: the begin of an error.
        config: of any model.

    Raises:
        UserError: it reads more than text, or is an encoder.
    """
    from transformers.models.auto import modeling_auto as known

    kind = config.model_type
    text = config.get_text_config()
    if text is not config:
        raise UserError(
            f"{label}: a model of type {kind!r} reads more than text (its config.json has a part "
            f"{text.model_type!r} beside others), and is not taken as a whole; write its text part alone "
            f"into a folder, with its tokenizer and save_pretrained, or name {LANGUAGE_MODELS}"
        )
    encodes = kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if kind not in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or encodes:
        raise UserError(
            f"{label}: a model of type {kind!r} does not continue a text (it is an encoder, or its "
            f"config.json does not say is_decoder); name {LANGUAGE_MODELS}"
        )


def check_tokenizer(label: str, tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    """Check that a model has an embedding of each of its tokenizer's tokens, and that batches can be padded.

    On which side it would pad makes no difference: inputs are padded behind their last token everywhere.

    Args:
        label: the begin of an error.
        tokenizer: of a model that reads whole texts.
        embeddings: tokens that the model knows.

    Raises:
        UserError: what is missing.
    """
    check_embeddings(label, tokenizer, embeddings)
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"{label}: its tokenizer has no padding token; name one (tokenizer.pad_token = ...) and write it "
            "again with save_pretrained"
        )


def check_embeddings(label: str, tokenizer: PreTrainedTokenizerBase, embeddings: int) -> None:
    """Check that a model has an embedding of each of its tokenizer's tokens.

    Args:
        label: the begin of an error.
        tokenizer: of any text model.
        embeddings: tokens that the model knows.

    Raises:
        UserError: it has not.
    """
    largest = max(tokenizer.get_vocab().values())
    if largest >= embeddings:
        raise UserError(
            f"{label}: its tokenizer makes tokens up to number {largest}, and it has embeddings for "
            f"{embeddings}; {SAVE_ITS_TOKENIZER}, or enlarge the model with resize_token_embeddings"
        )


def text_positions(config: Any) -> int | None:
    """Return the tokens that an input of a language model may have; None: it names no limit.

    Rotary positions that are scaled anew beyond some length (longrope, dynamic) are used up to it: there the
    states that a cache holds would change with every token.

    Args:
        config: of a language model.
    """
    if config.model_type in FAMILIES:
        return position_limit(config)
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_sequence_length")
    limits = [getattr(config, name, None) for name in names]
    rotary = getattr(config, "rope_parameters", None)
    if isinstance(rotary, dict) and rotary.get("rope_type") in ("longrope", "dynamic"):
        limits.append(rotary.get("original_max_position_embeddings"))
        limits.append(getattr(config, "original_max_position_embeddings", None))
    found = [int(limit) for limit in limits if isinstance(limit, int) and limit > 0]
    return min(found, default=None)


def unknown_tokens(tokenizer: Any, ids: Sequence[Sequence[int]]) -> list[int]:
    """Return how many tokens of each text stand for something that the vocabulary does not have.

    Args:
        tokenizer: that made the ids; one that spells any text out in bytes has no such token.
        ids: of each text.
    """
    unknown = tokenizer.unk_token_id
    return [0 if unknown is None else list(one).count(unknown) for one in ids]
