"""Mask and tokenise sentences: the mention becomes the tokenizer's mask token.

The text on either side of the mention is tokenised apart, and no special token is looked for in it: a
sentence that spells "[MASK]" or "[SEP]" itself cannot make a second mask or end the input.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.errors import UserError
from engine.models.fit import check_encoder
from engine.models.hub import NamedModel
from engine.models.plain_text import token_ids
from engine.text.words import mentions_in

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class MaskedInput(NamedTuple):
    """A masked sentence: its token ids, special ones too, the mask position, and whether text was cut."""

    input_ids: list[int]
    mask_index: int
    clipped: bool


def load_tokenizer(model: str | os.PathLike[str], role: str = "--model") -> PreTrainedTokenizerBase:
    """Return an encoder's tokenizer, of a folder, local or in a bucket, a hub name, or "embedded".

    Args:
        model: as a user gave it (:class:`NamedModel`).
        role: the option that named it, for errors.

    Raises:
        UserError: there is none, or it has no mask token or no tokens for begin and end.
    """
    named = NamedModel.open(model, role)
    tokenizer = named.fast_tokenizer()
    if tokenizer.mask_token_id is None:
        raise UserError(f"{named.label}: its tokenizer has no mask token; an encoder like BERT is needed")
    _ends(tokenizer, named.label)
    return tokenizer


def fitting_tokenizer(
    model: str | os.PathLike[str], length: int, role: str = "--model", option: str = "--max-length"
) -> PreTrainedTokenizerBase:
    """Return an encoder's tokenizer after a check that both fit each other and inputs of some length.

    Args:
        model: as a user gave it (:class:`NamedModel`); none of its weights is read.
        length: tokens of an input at most, special ones included.
        role: the option that named the model, for errors.
        option: what set the length, for errors.

    Raises:
        UserError: what does not fit (:func:`engine.models.fit.check_encoder`).
    """
    tokenizer = load_tokenizer(model, role)
    check_encoder(NamedModel.open(model, role), tokenizer, length, option)
    MentionMasker(tokenizer, length)  # which has limits of its own
    return tokenizer


def fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a sha256 over everything that decides which ids a text gets; take it before the first use.

    A call leaves its truncation and padding in the tokenizer, where a saved one may have had others.
    """
    specials = (tokenizer.mask_token_id, *_ends(tokenizer))
    content = f"{specials}{tokenizer.backend_tokenizer.to_str()}"
    return hashlib.sha256(content.encode()).hexdigest()


class MentionMasker:
    """A tokenizer of sentences into :class:`MaskedInput`.

    Args:
        tokenizer: of a BERT- or RoBERTa-like encoder.
        max_length: tokens of an input at most, special ones included. What is longer is cut to a window
            around the mask, moved at the ends so that the room is always used.
        window: what of a longer input is cut. "sentence" (ours): the sentence, and a description as far as
            half of the room; begin and end tokens stay. "input": all of it, description and special tokens
            too, as RetExpan's program does, so that a window inside a long input begins without any.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        window: Literal["sentence", "input"] = "sentence",
    ) -> None:
        self._tokenizer = tokenizer
        self._mask = int(tokenizer.mask_token_id)
        self._first, self._last = _ends(tokenizer)
        self._body, self._window = max_length - 2, window
        # A mask token that takes in the space before it (RoBERTa's) leaves none to the text on its left.
        added = tokenizer.added_tokens_decoder.get(self._mask)
        self._strip_left, self._strip_right = (
            bool(added and added.lstrip),
            bool(added and added.rstrip),
        )
        if self._body < 2:
            raise UserError(f"a limit of {max_length} tokens has no room for a mask and its context")
        if max_length > tokenizer.model_max_length:
            most = tokenizer.model_max_length
            raise UserError(f"a limit of {max_length} tokens: the model takes {most} at most (--max-length)")

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of plain texts, without special tokens."""
        return token_ids(self._tokenizer, texts)

    def encode_descriptions(
        self, texts: Sequence[str], spellings: Sequence[Sequence[str]]
    ) -> list[list[int]]:
        """Return the token ids of descriptions, each mention of the entity's own names masked.

        Not the paper's retrieval augmentation, which leaves descriptions as they are (:meth:`tokens`). Left
        in, the name answers the question which entity is masked, and a long training learns to read it.

        Args:
            texts: a description an entity.
            spellings: the name and the aliases of each entity.
        """
        cut = [_without(text, names) for text, names in zip(texts, spellings, strict=True)]
        ids = iter(self.tokens([piece for pieces in cut for piece in pieces]))
        found = []
        for pieces in cut:
            joined = list(next(ids))
            for _ in pieces[1:]:
                joined += [self._mask, *next(ids)]
            found.append(joined)
        return found

    def encode(
        self,
        sentences: Sequence[str],
        starts: Sequence[int],
        ends: Sequence[int],
        descriptions: Sequence[Sequence[int]] | None = None,
    ) -> list[MaskedInput]:
        """Return the model input of sentences whose mentions lie at characters [start, end).

        Args:
            sentences: their texts.
            starts: first character of each mention.
            ends: the character after each mention.
            descriptions: token ids (:meth:`tokens`, or :meth:`encode_descriptions`) that go in front of
                each sentence; cut so that the sentence has at least half of the room if it needs it.
        """
        sides: list[str] = []
        for sentence, start, end in zip(sentences, starts, ends, strict=True):
            left, right = sentence[:start], sentence[end:]
            sides.append(left.rstrip() if self._strip_left else left)
            sides.append(right.lstrip() if self._strip_right else right)
        ids = self.tokens(sides)
        before: Sequence[Sequence[int]] = descriptions or [()] * len(sentences)
        return [self._join(*three) for three in zip(before, ids[::2], ids[1::2], strict=True)]

    def _join(self, description: Sequence[int], left: list[int], right: list[int]) -> MaskedInput:
        if self._window == "input":
            return self._cut([self._first, *description, *left], [*right, self._last])
        needed = len(left) + 1 + len(right)
        shown = description[: max(self._body - needed, self._body // 2)]
        room = self._body - len(shown) - 1
        taken_left = min(len(left), max(room // 2, room - len(right)))
        taken_right = min(len(right), room - taken_left)
        head = [self._first, *shown, *left[len(left) - taken_left :]]
        ids = [*head, self._mask, *right[:taken_right], self._last]
        return MaskedInput(ids, len(head), len(ids) < 2 + len(description) + needed)

    def _cut(self, before: list[int], after: list[int]) -> MaskedInput:
        """Return a whole input cut to a window centred on its mask."""
        whole, size = [*before, self._mask, *after], self._body + 2
        start = max(0, min(len(before) - size // 2, len(whole) - size))
        ids = whole[start : start + size]
        return MaskedInput(ids, len(before) - start, len(ids) < len(whole))


def _without(text: str, names: Sequence[str]) -> list[str]:
    """Return the pieces of a text between mentions of some names (:func:`mentions_in`)."""
    pieces, last = [], 0
    for start, end in mentions_in(text, names):
        pieces.append(text[last:start])
        last = end
    return [*pieces, text[last:]]


def _ends(tokenizer: PreTrainedTokenizerBase, label: str = "") -> tuple[int, int]:
    first = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    last = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if first is None or last is None:
        raise UserError(
            f"{label or tokenizer.name_or_path}: its tokenizer has no tokens for the begin and the end of an "
            "input; an encoder like BERT is needed"
        )
    return int(first), int(last)


def bare_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """Return the input of a context without text: begin, mask, end."""
    first, last = _ends(tokenizer)
    return first, int(tokenizer.mask_token_id), last
