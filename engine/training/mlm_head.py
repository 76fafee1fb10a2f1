"""Train the head of a masked language model whose encoder came without one.

An encoder of sentences has lost the head that it was pre-trained with. The head here is BERT's own: a
dense layer, GELU and LayerNorm, and a decoder that is the encoder's word embeddings with a bias a token. The
encoder and the embeddings stay as they are, so the states at the masks are computed once and kept in memory,
and what learns is D x D + 3 D + V numbers (0.18 M of MiniLM's 22.7 M).

It learns one thing, to fill a mask by a class noun (a plural), as that is what CGExpan reads off it. A
sentence encoder's last states at masks are much the same everywhere (with MiniLM their mean has 87 % of their
energy), and a head that may answer any token answers "the", "," and "of". Masks are therefore drawn among
plurals, and a token that was never drawn gets a bias that rules it out. Every drawn token becomes the mask
(BERT leaves a tenth and changes another), as the model is asked at masks alone.

Shape letters: M masks, D dimensions, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from engine.models.masked_lm import begin_as_identity
from engine.text.class_words import head_noun

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, PreTrainedTokenizerBase

    from engine.models.text import TextEncoder

SHARE = 0.15
"""Of a sentence's tokens that are masked at most, but one at least."""
MAX_TOKENS = 64
EPOCHS, BATCH, LEARNING_RATE = 10, 128, 1e-3
RECIPE = f"plurals {SHARE} {MAX_TOKENS} {EPOCHS} {BATCH} {LEARNING_RATE}"
"""All that a head depends on besides its sentences: one that is kept is taken where this is the same."""
ENCODED = 64
"""Sentences that are encoded at a time."""

Progress = Callable[[int], None]


class MaskedTokens(NamedTuple):
    """A sentence with masks: its ids, special ones too, and the places and the tokens of the masks."""

    ids: list[int]
    places: list[int]
    targets: list[int]


def class_nouns(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.bool_]:
    """Return which tokens of a WordPiece vocabulary may name a class, bool [V]."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.array([head_noun(token, lambda plural: False) is not None for token in tokens])


def mask_tokens(
    tokenizer: PreTrainedTokenizerBase,
    token_ids: Sequence[Sequence[int]],
    masked_V: npt.NDArray[np.bool_],
    seed: int,
) -> list[MaskedTokens]:
    """Return sentences with some of their tokens masked at random; those that have none to mask are left out.

    Args:
        tokenizer: of WordPiece.
        token_ids: sentences.
        masked_V: the tokens that may be masked, where they are a whole word.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    continues_V = np.array([token.startswith("##") for token in tokens])
    found = []
    for sentence in token_ids:
        own = np.array(sentence[: MAX_TOKENS - 2], np.int64)
        cut_off = np.append(continues_V[own[1:]], False)
        may_be = np.flatnonzero(masked_V[own] & ~cut_off)
        if not len(may_be):
            continue
        size = min(len(may_be), max(1, round(SHARE * len(own))))
        drawn = np.sort(random.choice(may_be, size, replace=False))
        targets = own[drawn].tolist()
        own[drawn] = tokenizer.mask_token_id
        ids = [tokenizer.cls_token_id, *own.tolist(), tokenizer.sep_token_id]
        found.append(MaskedTokens(ids, (drawn + 1).tolist(), targets))
    return found


def states_at_masks(
    encoder: TextEncoder, sentences: Sequence[MaskedTokens], progress: Progress = lambda n: None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last hidden states at all masks, float32 [M, D], and the tokens there, int64 [M]."""
    order = sorted(range(len(sentences)), key=lambda i: len(sentences[i].ids))
    states, targets = [], list[int]()
    device = next(encoder.model.parameters()).device
    for start in range(0, len(order), ENCODED):
        batch = [sentences[i] for i in order[start : start + ENCODED]]
        ids_BL = pad_sequence([torch.tensor(one.ids) for one in batch], batch_first=True).to(device)
        lengths_B = torch.tensor([len(one.ids) for one in batch], device=device)
        with torch.inference_mode():
            states_BLD = encoder.states(ids_BL, lengths_B)
        states += [states_BLD[row, one.places].float().cpu() for row, one in enumerate(batch)]
        targets += [target for one in batch for target in one.targets]
        progress(len(batch))
    return torch.cat(states), torch.tensor(targets)


def train_head(
    model: BertForMaskedLM,
    states_MD: torch.Tensor,
    targets_M: torch.Tensor,
    seed: int,
    progress: Progress = lambda n: None,
) -> list[float]:
    """Train the head in place and return the mean loss of every epoch, in nats a mask.

    Begins with the identity, and with the logarithms of the tokens' frequencies as biases.

    Args:
        model: with the encoder's weights in it.
        states_MD: inputs of the head.
        targets_M: tokens.
        seed: of the order.
        progress: is called with the masks of each step.
    """
    head: Any = model.cls.predictions
    seen, labels_M = torch.unique(targets_M, return_inverse=True)
    counts = torch.bincount(labels_M).float()
    begin_as_identity(model)
    with torch.no_grad():
        head.bias.fill_(float(torch.log(0.5 / counts.sum())) - 10)
        head.bias[seen] = torch.log(counts / counts.sum())
    words: Any = model.get_input_embeddings()
    words_VD = words.weight.detach()[seen]
    bias_V = head.bias.detach()[seen].clone().requires_grad_(True)
    learns = [*head.transform.parameters(), bias_V]
    for parameter in learns:
        parameter.requires_grad_(True)
    steps = EPOCHS * -(-len(states_MD) // BATCH)
    optimizer = torch.optim.AdamW(learns, lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    random = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(states_MD), generator=random).split(BATCH):
            logits = head.transform(states_MD[rows]) @ words_VD.T + bias_V
            loss = cross_entropy(logits, labels_M[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(rows)
            progress(len(rows))
        losses.append(total / len(states_MD))
    with torch.no_grad():
        head.bias[seen] = bias_V
    model.requires_grad_(False)
    return losses
