"""Train a BERT as a masked language model, on the sentences of a corpus: with a new head, or with its own.

An encoder of sentences has lost the head that it was pre-trained with, and the states that it was read from:
MiniLM's at masks have 88 % of their energy in common, and a head on such states names classes wrongly. So
all layers learn, with BERT's own head: a dense layer that begins as the identity, GELU and LayerNorm, and a
decoder that is the word embeddings with a bias a token. A BERT that brings its head goes on from it, at the
rate of BERT's pre-training.

**What is masked.** In each pass anew, a share of every sentence's tokens, plurals more often (CGExpan reads
the names of classes off the model) and what is no word more seldom. In half of the sentences a mention is one
mask besides, whatever tokens it has, and one of these is to be found: that is how sentences and queries are
read, with one mask for an entity, where the authors' BERT had a mask a token. Every drawn token becomes the
mask (BERT leaves a tenth and changes another), as the model is asked at masks alone.

The probabilities are over the tokens that the sentences hold; all others get a bias that rules them out.

**Cost.** 64 MFLOP a token and 70 a mask for MiniLM, of which 20,000 sentences have 1.3 million and 0.3
million in two passes.

Shape letters: B sentences, L tokens, M masks, D dimensions, V tokens of the vocabulary, S of the sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence

from engine.corpus.inputs.masking import MentionMasker
from engine.models.mask_states import length_batches
from engine.models.masked_lm import begin_as_identity
from engine.models.text import fast_dtype
from engine.text.class_words import head_noun
from engine.training.optimizer import parameter_groups
from engine.training.schedule import warmup_cosine

if TYPE_CHECKING:
    from transformers import BertForMaskedLM, PreTrainedTokenizerBase

PASSES, BATCH_TOKENS, LEARNING_RATE = 2, 2048, 5e-4
LEAST = 4000
"""Sentences that are read in all, at least: a small corpus is passed more often."""
SHARE, MENTIONS = 0.25, 0.5
"""Of a sentence's tokens that are masked, and of the sentences in which a mention is one mask."""
PLURAL, NO_WORD = 4.0, 0.25
"""How much more often plurals, and tokens with other signs than letters, are drawn than other tokens."""
MAX_TOKENS = 34
"""A longer sentence is cut to a window around the mention, or anywhere."""
WARMUP, WEIGHT_DECAY, CLIP = 0.07, 0.01, 1.0
RULED_OUT = -30.0
OWN_HEAD_RATE = 1e-4
"""Peak rate for an encoder with its own head: that of BERT's pre-training (Devlin et al., 2019, A.2)."""

Progress = Callable[[int], None]


def recipe(own_head: bool) -> str:
    """Return what a model depends on besides its sentences: where it is the same, a kept one is taken."""
    rate = OWN_HEAD_RATE if own_head else LEARNING_RATE
    of_text = SHARE, MENTIONS, PLURAL, NO_WORD, MAX_TOKENS
    return " ".join(map(str, (PASSES, LEAST, BATCH_TOKENS, rate, *of_text)))


class Sentence(NamedTuple):
    """A text, and the characters [start, end) of its mentions."""

    text: str
    mentions: list[tuple[int, int]]


class MaskedTokens(NamedTuple):
    """A sentence with masks: its ids, special ones too, and the places and the tokens of the masks."""

    ids: list[int]
    places: list[int]
    targets: list[int]


class Masking:
    """A tokenizer of sentences that draws what is masked.

    Args:
        tokenizer: of WordPiece.
        seed: of the draws.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self._tokenizer = tokenizer
        self._masker = MentionMasker(tokenizer, MAX_TOKENS)
        self._random = np.random.default_rng(seed)
        self._weight_V = drawn_weights(tokenizer)

    def one_pass(self, sentences: Sequence[Sentence]) -> list[MaskedTokens]:
        """Return the sentences with masks, drawn anew; one that has no token to mask is left out."""
        named = [bool(one.mentions) and self._random.random() < MENTIONS for one in sentences]
        plain, hidden = (
            [one for one, hides in zip(sentences, named, strict=True) if hides == kind]
            for kind in (False, True)
        )
        tokens, inputs = iter(self._masker.tokens([one.text for one in plain])), iter(self._hidden(hidden))
        found = [next(inputs) if hides else self._windowed(next(tokens)) for hides in named]
        return [drawn for one in found if (drawn := self._masked(one)).places]

    def _windowed(self, tokens: list[int]) -> MaskedTokens:
        start = int(self._random.integers(max(1, len(tokens) - (MAX_TOKENS - 2) + 1)))
        window = tokens[start : start + MAX_TOKENS - 2]
        return MaskedTokens([self._tokenizer.cls_token_id, *window, self._tokenizer.sep_token_id], [], [])

    def _hidden(self, sentences: Sequence[Sentence]) -> list[MaskedTokens]:
        """Return sentences in which a drawn mention is one mask."""
        texts = [one.text for one in sentences]
        spans = [one.mentions[int(self._random.integers(len(one.mentions)))] for one in sentences]
        names = self._masker.tokens([text[slice(*span)] for text, span in zip(texts, spans, strict=True)])
        inputs = self._masker.encode(texts, [start for start, _ in spans], [end for _, end in spans])
        found = []
        for own, name in zip(inputs, names, strict=True):
            # A mention that the tokenizer makes nothing of stays masked, without a target.
            target = [name[int(self._random.integers(len(name)))]] if name else []
            found.append(MaskedTokens(own.input_ids, [own.mask_index] * len(target), target))
        return found

    def _masked(self, one: MaskedTokens) -> MaskedTokens:
        """Return a sentence with a share of its tokens masked, besides what is masked already."""
        ids = np.array(one.ids)
        may_be = np.arange(1, len(ids) - 1)
        may_be = may_be[ids[may_be] != self._tokenizer.mask_token_id]
        if not len(may_be):
            return one
        weights = self._weight_V[ids[may_be]]
        size = max(1, round(SHARE * len(may_be)))
        places = self._random.choice(may_be, size, replace=False, p=weights / weights.sum())
        targets = ids[places].tolist()
        ids[places] = self._tokenizer.mask_token_id
        return MaskedTokens(ids.tolist(), [*one.places, *places.tolist()], [*one.targets, *targets])


def passes_over(sentences: int) -> int:
    """Return how often so many sentences are passed."""
    return max(PASSES, -(-LEAST // max(1, sentences)))


def class_nouns(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.bool_]:
    """Return which tokens of a WordPiece vocabulary may name a class, bool [V]."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return np.array([head_noun(token, lambda plural: False) is not None for token in tokens])


def drawn_weights(tokenizer: PreTrainedTokenizerBase) -> npt.NDArray[np.float64]:
    """Return how often each token of a WordPiece vocabulary is drawn, beside the others, [V]."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    letters_V = np.array([token.removeprefix("##").isalpha() for token in tokens])
    return np.where(class_nouns(tokenizer), PLURAL, np.where(letters_V, 1.0, NO_WORD))


def train(
    model: BertForMaskedLM,
    passes: Sequence[Sequence[MaskedTokens]],
    seed: int,
    progress: Progress = lambda n: None,
    own_head: bool = False,
) -> list[float]:
    """Train a model in place and return the mean loss of every pass, in nats a mask.

    Args:
        model: with the encoder's weights in it; its device is used.
        passes: sentences with masks; those of one pass are mixed.
        seed: of the order.
        progress: is called with the sentences of each step.
        own_head: go on with the model's head; else it begins as the identity and the targets' frequencies.
    """
    rate = OWN_HEAD_RATE if own_head else LEARNING_RATE
    decoder: Any = model.get_output_embeddings()
    seen_S = _begin(model, passes, own_head)
    attention = model.config._attn_implementation
    model.eval()  # no dropout: in so few passes there is nothing to forget
    # On a CPU, PyTorch's fused attention takes more time for its gradients than all the rest of a step.
    model.set_attn_implementation("eager")
    optimizer = torch.optim.AdamW(parameter_groups(model, WEIGHT_DECAY), rate, (0.9, 0.98), fused=True)
    random = np.random.default_rng(seed)
    batches = [[[own[i] for i in rows] for rows in _batches(own, random)] for own in passes]
    step, steps, losses = 0, sum(map(len, batches)), []
    for own in batches:
        total, masks = 0.0, 0
        for batch in own:
            for group in optimizer.param_groups:
                group["lr"] = warmup_cosine(step, steps, rate, WARMUP)
            loss, size = _loss(model, batch, seen_S)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            step, total, masks = step + 1, total + float(loss.detach()) * size, masks + size
            progress(len(batch))
        losses.append(total / max(1, masks))
    with torch.no_grad():
        ruled_out = torch.full_like(decoder.bias, RULED_OUT)
        ruled_out[seen_S] = decoder.bias[seen_S]
        decoder.bias.copy_(ruled_out)
    model.requires_grad_(False).set_attn_implementation(attention)
    return losses


def _begin(model: BertForMaskedLM, passes: Sequence[Sequence[MaskedTokens]], own_head: bool) -> torch.Tensor:
    """Let all weights learn, begin a new head, and return the tokens that are targets, int64 [S]."""
    bias: Any = model.get_output_embeddings().bias
    targets = torch.tensor([target for own in passes for one in own for target in one.targets])
    counts_V = torch.bincount(targets, minlength=len(bias)).float()
    (seen_S,) = torch.nonzero(counts_V, as_tuple=True)
    model.requires_grad_(True)
    if not own_head:
        begin_as_identity(model)
        with torch.no_grad():
            bias[seen_S] = torch.log(counts_V[seen_S] / counts_V.sum()).to(bias)
    return seen_S.to(bias.device)


def _batches(own: Sequence[MaskedTokens], random: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    """Return the sentences of each step: of like lengths together, steps in a random order."""
    mixed = random.permutation(len(own))
    batches = [mixed[rows] for rows in length_batches([len(own[i].ids) for i in mixed], BATCH_TOKENS)]
    return [batches[i] for i in random.permutation(len(batches))]


def _loss(
    model: BertForMaskedLM, batch: Sequence[MaskedTokens], seen_S: torch.Tensor
) -> tuple[torch.Tensor, int]:
    """Return the mean loss at the masks of some sentences, in nats, and how many masks they have."""
    head: Any = model.cls.predictions
    decoder: Any = model.get_output_embeddings()
    device = decoder.bias.device
    ids_BL = pad_sequence([torch.tensor(one.ids) for one in batch], batch_first=True).to(device)
    shown_BL = pad_sequence([torch.ones(len(one.ids), dtype=torch.int64) for one in batch], batch_first=True)
    rows_M = torch.tensor([row for row, one in enumerate(batch) for _ in one.places])
    places_M = torch.tensor([place for one in batch for place in one.places])
    targets_M = torch.tensor([target for one in batch for target in one.targets]).to(device)
    compute = fast_dtype(device)
    with torch.autocast(device.type, compute, enabled=compute != torch.float32):
        states_BLD = model.bert(ids_BL, attention_mask=shown_BL.to(device)).last_hidden_state
        logits_MS = head.transform(states_BLD[rows_M, places_M]) @ decoder.weight[seen_S].T
        logits_MS = logits_MS + decoder.bias[seen_S]
    return cross_entropy(logits_MS.float(), torch.searchsorted(seen_S, targets_M)), len(targets_M)
