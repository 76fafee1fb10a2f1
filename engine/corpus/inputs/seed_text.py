"""Append a query's seeds to a sentence: the seed text of contrastive learning (RetExpan, section 5.1.2).

The input of a sentence under a query is what it is without one, and behind that the seed text::

    [CLS] left [MASK] right [SEP] [POS_SEP] iron [POS_SEP] copper [NEG_SEP] quartz

as the authors' program writes it. What it says and what is left open:

- The sentence, its window and its end token are as without seeds: the seed text takes no room from them, so
  that inputs made once serve every query. An input is so much longer, and the model needs positions for both.
- No end token follows the seed text.
- It is cut to 150 tokens. Their program cuts the last ones off, in the middle of a name, and all negative
  seeds before the first positive one. Here whole seeds are kept, of both kinds in turns, and one that does
  not fit is left out; those kept stand in the query's order. While all fit, both are the same.
- The seed text is one for all entities. A sentence of an entity that is a seed itself has its name behind it,
  too, though masked in the sentence: the paper does not say otherwise, and the program does nothing about it.
- Their program appends the seeds of a class's list that was mined, the same for all queries of the class. A
  query that comes from outside belongs to no such list: here its own seeds are appended.
- A seed that the vocabulary does not hold has a name, too, and is written like the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from engine.errors import UserError
from engine.models.plain_text import token_ids
from engine.models.seed_tokens import NEG_SEP, POS_SEP, has_seed_tokens, seed_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SEED_TOKENS = 150
"""Tokens of a seed text at most (the authors' program)."""

LEAST_SEED_TOKENS = 16
"""Tokens that a seed text has at least: a model without positions for so many reads no seeds."""


class SeedText:
    """A writer of seed texts: token ids that go behind the ids of a sentence.

    Args:
        tokenizer: with the two tokens (:func:`engine.models.seed_tokens.with_seed_tokens`).
        most: tokens of a seed text at most (:func:`seed_room`).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, most: int = SEED_TOKENS) -> None:
        if not has_seed_tokens(tokenizer):
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} has no tokens {POS_SEP} and {NEG_SEP}, so that it "
                "writes no seeds; take the encoder of a contrastive training (`seedset train-encoder "
                "--contrast newest --seed-text`)"
            )
        self._tokenizer, self.most = tokenizer, most
        self._positive, self._negative = seed_token_ids(tokenizer)

    def ids(self, positive: Sequence[str], negative: Sequence[str] = ()) -> list[int]:
        """Return the ids of a seed text, at most ``most``.

        Args:
            positive: names of the positive seeds, in order; those that spell a special token are text.
            negative: of the negative ones.
        """
        # A space in front: names are words inside a text, which some tokenizers write otherwise than a first.
        names = token_ids(self._tokenizer, [f" {name}" for name in (*positive, *negative)])
        seeds = [[self._positive, *ids] for ids in names[: len(positive)]]
        others = [[self._negative, *ids] for ids in names[len(positive) :]]
        kept, room = set(), self.most
        in_turns = zip_longest(range(len(seeds)), range(len(seeds), len(names)))
        every = [*seeds, *others]
        for place in (p for p in chain.from_iterable(in_turns) if p is not None):
            if len(every[place]) <= room:
                kept.add(place)
                room -= len(every[place])
        return [token for place in sorted(kept) for token in every[place]]


def seed_room(positions: int, longest: int, label: str) -> int:
    """Return how many tokens a seed text may have behind the longest of some sentences.

    Args:
        positions: tokens that the model takes (:func:`engine.models.families.position_limit`).
        longest: tokens of a sentence's input at most.
        label: the begin of an error, the model's name.

    Raises:
        UserError: sentences leave too little room.
    """
    room = min(SEED_TOKENS, positions - longest)
    if room < LEAST_SEED_TOKENS:
        raise UserError(
            f"{label}: it takes {positions} tokens, sentences have up to {longest} of them, and the "
            f"seeds behind them need {LEAST_SEED_TOKENS} at least; run `seedset preprocess` with "
            f"--max-length {max(positions - SEED_TOKENS, 8)}, or name a model with more positions"
        )
    return room
