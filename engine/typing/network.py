"""Score type labels for mentions: the network of FiveFine, and its loss.

A mention is the state at the mask of its question, brought through the transform of the masked language
model's head; a label is pooled from the decoder's rows of its tokens (:mod:`engine.typing.pooling`); the
score is their dot product (section 2.2). Three objectives share the encoder (section 2.4):

- typing: binary cross-entropy over all labels; a mention's own labels count ``label_weight`` times, labels
  that a program added once, and the labels that it lacks once. The loss of a mention is the sum over labels;
- masked language modelling: some of the text's tokens are masked in the typed input itself, and the head
  predicts them. It trains the decoder's rows, which labels are made of;
- next word: in a twin of the input the head predicts the word beside the mention, at ``(Left: [MASK])`` or
  ``(Right: [MASK])``. The authors give this a head of its own; here it shares the one that there is.

Shape letters: B inputs, L tokens of the longest, D dimensions, V tokens of the vocabulary, N labels,
M masked tokens, W twins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy, logsigmoid

from engine.models.masked_lm import head_of, transform_of
from engine.models.text import padding_mask
from engine.typing.pooling import LabelPooling, LabelTokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Tensor = torch.Tensor


class Questions(NamedTuple):
    """Inputs of the encoder: typed mentions first, then twins; and what the objectives want of them.

    Attributes:
        ids_BL: tokens, padded.
        lengths_B: tokens of each input.
        mask_B: place of each input's question.
        target_PN: 1 for the labels of each typed mention, [P, N] with P typed mentions.
        weight_PN: what each label counts.
        masked: input, place and token of the masked tokens, and the share of each in the loss.
        words_W: tokens that the twins ask for.
    """

    ids_BL: Tensor
    lengths_B: Tensor
    mask_B: Tensor
    target_PN: Tensor
    weight_PN: Tensor
    masked: tuple[Tensor, Tensor, Tensor, Tensor]
    words_W: Tensor


class TypingNetwork(nn.Module):
    """The encoder with its head, and the pooling of labels.

    Args:
        mlm: a masked language model of transformers.
        labels: tokens of the labels that are scored; they can be exchanged (``labels``), the weights stay.
    """

    def __init__(self, mlm: PreTrainedModel, labels: LabelTokens) -> None:
        super().__init__()
        self.mlm: Any = mlm
        self.pooling = LabelPooling(self.tokens_VD.shape[1])
        self.labels = labels
        # Views of the same weights, which belong in no checkpoint a second time.
        self._views = transform_of(mlm), head_of(mlm)

    @property
    def tokens_VD(self) -> Tensor:
        """The decoder's rows: a vector of every token."""
        return self.mlm.get_output_embeddings().weight

    def states(self, ids_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """Return the encoder's last states, [B, L, D]."""
        within_BL = ~padding_mask(lengths_B, ids_BL.shape[1])
        found: Tensor = self.mlm.base_model(
            input_ids=ids_BL, attention_mask=within_BL.long()
        ).last_hidden_state
        return found

    def transformed(self, states_BD: Tensor) -> Tensor:
        """Bring states through the transform of the head, [B, D]."""
        transform: Any = self._views[0]
        return transform(inputs_embeds=states_BD[:, None]).logits[:, 0]

    def token_logits(self, states_MD: Tensor) -> Tensor:
        """Return the head's logits of the vocabulary, [M, V]."""
        head: Any = self._views[1]
        return head(inputs_embeds=states_MD[:, None]).logits[:, 0]

    def label_vectors(self) -> Tensor:
        """Return the vector of every label, [N, D]."""
        labels = self.labels.to(self.tokens_VD.device)
        found: Tensor = self.pooling(self.tokens_VD[labels.ids_U], labels)
        return found

    def scores(self, states_BD: Tensor) -> Tensor:
        """Return the score of every label for states at masks, float32 [B, N]; above 0: it holds."""
        return (self.transformed(states_BD) @ self.label_vectors().T).float()

    def forward(self, questions: Questions, objective_weight: float) -> Tensor:
        """Return the summed loss of some mentions.

        Args:
            questions: typed mentions and twins.
            objective_weight: of masked language modelling, and of next-word prediction.
        """
        states_BLD = self.states(questions.ids_BL, questions.lengths_B)
        rows = torch.arange(len(states_BLD), device=states_BLD.device)
        at_mask_BD = states_BLD[rows, questions.mask_B]
        typed = len(questions.target_PN)
        loss = typing_loss(self.scores(at_mask_BD[:typed]), questions.target_PN, questions.weight_PN).sum()
        row_M, place_M, token_M, share_M = questions.masked
        states_WD = at_mask_BD[typed:]
        if len(row_M) or len(states_WD):
            asked_MD = torch.cat([states_BLD[row_M, place_M], states_WD])
            logits_MV = self.token_logits(asked_MD).float()
            token_M = torch.cat([token_M, questions.words_W])
            share_M = torch.cat([share_M, share_M.new_ones(len(states_WD))])
            tokens = cross_entropy(logits_MV, token_M, reduction="none") @ share_M
            loss = loss + objective_weight * tokens
        return loss


def typing_loss(scores_PN: Tensor, target_PN: Tensor, weight_PN: Tensor) -> Tensor:
    """Return the weighted binary cross-entropy of each mention, summed over all labels, [P].

    Args:
        scores_PN: logits.
        target_PN: 1 for a label that holds, else 0.
        weight_PN: what each label counts.
    """
    gains_PN = target_PN * logsigmoid(scores_PN) + (1 - target_PN) * logsigmoid(-scores_PN)
    return -(weight_PN * gains_PN).sum(1)
