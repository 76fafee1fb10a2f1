"""Make the model's input of a mention: ``left [ mention ] (Type: [MASK]) right`` (FiveFine, section 2.1).

Its twins ask for the word beside the mention in place of its type: ``(Left: [MASK])`` and
``(Right: [MASK])`` (section 2.4). Of what does not fit the right context is cut first, from its end, then the
left one from its far end, then the mention from its end. Texts are tokenised as texts: what spells a special
token makes none (:mod:`engine.models.plain_text`).
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from engine.corpus.inputs.masking import bare_ids
from engine.errors import UserError
from engine.models.plain_text import token_ids
from engine.typing.mentions import Mention

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_TOKENS = 128
AT_ONCE = 4096
"""Mentions that are tokenised at once: the library keeps kilobytes of each until all of them are done."""

Slot = Literal["Type", "Left", "Right"]
SLOTS: tuple[Slot, ...] = ("Type", "Left", "Right")


class MentionInput(NamedTuple):
    """The tokens of a mention's input by part, of 4 bytes each; with any slot they make an input."""

    left: array[int]
    mention: array[int]
    right: array[int]

    @property
    def left_word(self) -> int | None:
        """The token before the mention; None: there is none."""
        return self.left[-1] if self.left else None

    @property
    def right_word(self) -> int | None:
        """The token after the mention; None: there is none."""
        return self.right[0] if self.right else None


class MaskedMention(NamedTuple):
    """An assembled input: its tokens, special ones too, the slot's mask, and where the texts' tokens are."""

    ids: list[int]
    mask_index: int
    text_places: list[int]


class InputMaker:
    """Makes inputs with one tokenizer.

    Args:
        tokenizer: a fast one with a mask token.
        max_tokens: of an input at most, special ones included.

    Raises:
        UserError: no mention fits so few tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_tokens: int = MAX_TOKENS) -> None:
        self._tokenizer, self.max_tokens = tokenizer, max_tokens
        self._begin, mask, self._end = bare_ids(tokenizer)
        # A byte-level vocabulary has a word's space in its first token.
        opening, closing, *asked = token_ids(tokenizer, [" [", ")", *(f" ] ({slot}:" for slot in SLOTS)])
        self._opening, self._closing = opening, [mask, *closing]
        self._asked = dict(zip(SLOTS, asked, strict=True))
        self._room = max_tokens - 2 - len(opening) - len(self._closing) - max(map(len, asked))
        if self._room < 1:
            raise UserError(
                f"--max-tokens {max_tokens}: the question takes {max_tokens - self._room} tokens by itself; "
                f"give {max_tokens - self._room + 1} or more"
            )

    def tokens(self, mentions: Sequence[Mention]) -> list[MentionInput]:
        """Return the tokens of mentions, cut to what fits with any slot."""
        found = []
        for begin in range(0, len(mentions), AT_ONCE):
            some = mentions[begin : begin + AT_ONCE]
            texts = [text for one in some for text in (one.left, f" {one.text}", f" {one.right}")]
            ids = token_ids(self._tokenizer, texts)
            found += [self._cut(*ids[start : start + 3]) for start in range(0, len(ids), 3)]
        return found

    def _cut(self, left: list[int], mention: list[int], right: list[int]) -> MentionInput:
        right = right[: max(0, self._room - len(left) - len(mention))]
        kept = max(0, min(len(left), self._room - len(mention)))
        parts = left[len(left) - kept :], mention[: self._room], right
        return MentionInput(*(array("i", part) for part in parts))

    def assemble(self, parts: MentionInput, slot: Slot = "Type") -> MaskedMention:
        """Return the input that asks for a slot."""
        head = [self._begin, *parts.left, *self._opening]
        asked = [*head, *parts.mention, *self._asked[slot]]
        ids = [*asked, *self._closing, *parts.right, self._end]
        mention, right = len(head), len(asked) + len(self._closing)
        places = [
            *range(1, 1 + len(parts.left)),
            *range(mention, mention + len(parts.mention)),
            *range(right, right + len(parts.right)),
        ]
        return MaskedMention(ids, len(asked), places)
