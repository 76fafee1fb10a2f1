"""Assemble the questions of a training step: inputs, what is masked in them, twins and targets.

What is drawn at random (masked tokens, twins) is a function of seed, step and mention, so that it is the same
on any number of workers, and a resumed run goes on with the same draws.

Shape letters: P typed mentions, B inputs (mentions and twins), L tokens, N labels, M masked tokens, W twins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from engine.typing.inputs import InputMaker, MaskedMention, MentionInput, Slot
from engine.typing.network import Questions

MASKED_SHARE = 0.1
"""Of a text's tokens that are predicted, one at least; the share of the authors' program."""
TWIN_SHARE = 0.25
"""Of the mentions that have a twin in a step. Their loss counts for all."""
AS_MASK, AS_RANDOM = 0.8, 0.1
"""Of the predicted tokens that become the mask, or any token; the others stay (BERT's shares)."""


NONE: npt.NDArray[np.int64] = np.empty(0, np.int64)
"""The numbers of no labels."""


class Labelled(NamedTuple):
    """A mention's input, and the numbers of its own labels, of those added by a program, and uncertain ones.

    Uncertain ones count neither way.
    """

    parts: MentionInput
    own: npt.NDArray[np.int64]
    added: npt.NDArray[np.int64]
    uncertain: npt.NDArray[np.int64] = NONE


class QuestionMaker:
    """Makes the questions of any mentions of a training.

    Args:
        maker: of inputs.
        mask_id: the mask's token.
        vocab_size: of the tokens.
        n_labels: N.
        label_weight: what a mention's own label counts.
        masking: predict masked tokens, too.
        next_word: ask for neighbouring words, too.
        seed: of what is drawn.
    """

    def __init__(
        self,
        maker: InputMaker,
        mask_id: int,
        vocab_size: int,
        n_labels: int,
        label_weight: float,
        masking: bool,
        next_word: bool,
        seed: int,
    ) -> None:
        self._maker, self._mask_id, self._vocab_size = maker, mask_id, vocab_size
        self._n_labels, self._label_weight = n_labels, label_weight
        self._masking, self._next_word, self._seed = masking, next_word, seed

    def questions(self, mentions: Sequence[Labelled], rows: Sequence[int], step: int) -> Questions:
        """Return the questions of some mentions.

        Args:
            mentions: of a batch.
            rows: the number of each among all, for its draws.
            step: of the run.
        """
        asked: list[MaskedMention] = []
        twins: list[tuple[MaskedMention, int]] = []
        masked: list[tuple[int, int, int, float]] = []
        for place, (one, row) in enumerate(zip(mentions, rows, strict=True)):
            random = np.random.default_rng([self._seed, step, row])
            question = self._maker.assemble(one.parts)
            if self._masking:
                masked += [(place, *found) for found in self._mask(question, random)]
            asked.append(question)
            if self._next_word and (twin := self._twin(one.parts, random)):
                twins.append(twin)
        inputs = [*asked, *(twin for twin, _ in twins)]
        places, tokens = (
            torch.tensor([m[:3] for m in masked], dtype=torch.int64).view(-1, 3),
            [m[3] for m in masked],
        )
        target_PN, weight_PN = self._targets(mentions)
        return Questions(
            pad_sequence([torch.tensor(one.ids) for one in inputs], batch_first=True),
            torch.tensor([len(one.ids) for one in inputs]),
            torch.tensor([one.mask_index for one in inputs]),
            target_PN,
            weight_PN,
            (places[:, 0], places[:, 1], places[:, 2], torch.tensor(tokens)),
            torch.tensor([word for _, word in twins], dtype=torch.int64),
        )

    def _mask(self, question: MaskedMention, random: np.random.Generator) -> list[tuple[int, int, float]]:
        """Mask some of an input's text tokens in place; return where, which, and the share of each."""
        may_be = question.text_places
        size = max(1, round(MASKED_SHARE * len(may_be)))
        drawn = np.sort(random.choice(may_be, size, replace=False)).tolist()
        found = [(place, question.ids[place], 1 / size) for place in drawn]
        for place, fate in zip(drawn, random.random(size), strict=True):
            if fate < AS_MASK:
                question.ids[place] = self._mask_id
            elif fate < AS_MASK + AS_RANDOM:
                question.ids[place] = int(random.integers(self._vocab_size))
        return found

    def _twin(self, parts: MentionInput, random: np.random.Generator) -> tuple[MaskedMention, int] | None:
        """Return an input that asks for one of a mention's neighbours, and the word; None: for neither."""
        sides: list[tuple[Slot, int | None]] = [("Left", parts.left_word), ("Right", parts.right_word)]
        there = [(slot, word) for slot, word in sides if word is not None]
        if not there or random.random() >= TWIN_SHARE:
            return None
        slot, word = there[int(random.integers(len(there)))]
        return self._maker.assemble(parts, slot), word

    def _targets(self, mentions: Sequence[Labelled]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return which labels hold, and what each counts, both float32 [P, N]."""
        target_PN = torch.zeros(len(mentions), self._n_labels)
        weight_PN = torch.ones(len(mentions), self._n_labels)
        for place, one in enumerate(mentions):
            target_PN[place, one.own] = 1.0
            target_PN[place, one.added] = 1.0
            weight_PN[place, one.own] = self._label_weight
            weight_PN[place, one.uncertain] = 0.0
        return target_PN, weight_PN
