"""Compute the log-probability of every continuation in a tree of them, without a search.

The hidden states come from :mod:`engine.generation.tree_pass`, each prefix's once.

Shape letters: E edges (a token after a distinct prefix), S sequences, R rows of hidden states, P pairs
of a row and a token after it, D dimensions, V tokens of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.generation.model import LanguageModel
from engine.generation.prefix_trees import Index, PrefixTrees, joined, levels, ragged
from engine.generation.tree_pass import hidden_states, tensor
from engine.generation.trie import Trie
from engine.query import Ids, Scores

Tensor = torch.Tensor

Normalise = Literal["allowed", "vocabulary"]

BATCH_TOKENS = 4096
"""Tokens of a forward pass, padding included (level by level: tokens held in the cache)."""

MAX_LOGITS = 1 << 22
"""Logits over the vocabulary held at a time (16 MiB): more leave the caches of a processor."""

PAIRS = 256
"""Pairs whose tokens share one product with the output layer."""


class NameScores(NamedTuple):
    """The log-probabilities of a trie's names after a prompt; one entry an entity, ascending ids.

    Attributes:
        ids: int32 [n].
        logprobs: log P(name | prompt), float32 [n]; names that tokenise alike have it in common.
        lengths: tokens of the name's sequence, int64 [n].
    """

    ids: Ids
    logprobs: Scores
    lengths: Index


def name_logprobs(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    tries: Sequence[Trie],
    normalise: Normalise = "allowed",
    batch_tokens: int = BATCH_TOKENS,
) -> list[NameScores]:
    """Return log P(name | prompt) of every name of each prompt's trie.

    It is what a beam search with a beam for every name would find. Time and memory grow with the
    distinct prefixes of a trie: meant for the 1,000 or so candidates that a retrieval recalled.

    Args:
        model: the language model.
        prompts: token ids, one prompt an entry.
        tries: the names that may follow each prompt, often the same object.
        normalise: probabilities over the tokens that the trie allows after a prefix (GenExpan; a name
            whose rest is forced costs nothing more), or over the whole vocabulary.
        batch_tokens: tokens of a forward pass. A batch holds their states in one layer, a mask of
            ``ROW_TOKENS`` floats for each, and ``MAX_LOGITS`` logits.
    """
    if not prompts:
        return []
    counts = [trie.n_sequences for trie in tries]
    length_S = joined([np.diff(trie.starts) for trie in tries])
    trees = PrefixTrees.build(
        prompts,
        joined([trie.tokens for trie in tries]),
        length_S,
        np.repeat(np.arange(len(tries)), counts),
        forced=normalise == "vocabulary",
    )
    logprob_S = logprobs(model, trees, normalise, batch_tokens).astype(np.float32)
    found = []
    for trie, first in zip(tries, np.cumsum(counts) - counts, strict=True):
        sequence = first + trie.entity_sequence
        found.append(NameScores(trie.entity_ids, logprob_S[sequence], length_S[sequence]))
    return found


@torch.inference_mode()
def logprobs(
    model: LanguageModel, trees: PrefixTrees, normalise: Normalise, batch_tokens: int = BATCH_TOKENS
) -> npt.NDArray[np.float64]:
    """Return the log-probability of each sequence of some trees after its prompt, float64 [S].

    Args:
        model: the language model.
        trees: the sequences.
        normalise: over the tokens that follow a prefix in its tree, or over the whole vocabulary.
        batch_tokens: tokens of a forward pass.
    """
    n = len(trees.token_E)
    if n == 0:
        return np.zeros(0)
    by_parent = np.argsort(trees.parent_E, kind="stable")
    first = np.searchsorted(trees.parent_E[by_parent], np.arange(n + len(trees.prompts) + 1))
    step_E = np.zeros(n)
    after = _allowed if normalise == "allowed" else _over_vocabulary
    for read, hidden_RD in hidden_states(model, trees, batch_tokens):
        row_P, place_P = ragged(first[read], first[read + 1] - first[read])
        edge_P = by_parent[place_P]
        step_E[edge_P] = after(model, hidden_RD, row_P, trees.token_E[edge_P])
    for level in levels(trees.depth_E)[1:]:
        step_E[level] += step_E[trees.parent_E[level]]
    return step_E[trees.last_S]


def _over_vocabulary(
    model: LanguageModel, hidden_RD: Tensor, row_P: Index, token_P: Index
) -> npt.NDArray[np.float32]:
    """Return log P(token | row) of each pair over the whole vocabulary; rows ascend."""
    found = []
    block = max(1, MAX_LOGITS // model.model.config.vocab_size)
    for start in range(0, len(hidden_RD), block):
        low, high = np.searchsorted(row_P, [start, start + block])
        logits_RV = model.logits(hidden_RD[start : start + block])
        row, token = (tensor(a[low:high], model) for a in (row_P - start, token_P))
        found.append(logits_RV[row, token] - logits_RV.logsumexp(1)[row])
    return torch.cat(found).cpu().numpy()


def _allowed(
    model: LanguageModel, hidden_RD: Tensor, row_P: Index, token_P: Index
) -> npt.NDArray[np.float64]:
    """Return log P(token | row) of each pair over the tokens that the row is paired with; rows ascend."""
    logit_P = np.zeros(len(row_P))
    begin_R = np.searchsorted(row_P, np.arange(len(hidden_RD)))
    single_R = np.diff(begin_R, append=len(row_P)) == 1
    # Rows of like places share a product: the tokens of all are few, and far fewer than the vocabulary.
    chosen = np.flatnonzero(~single_R[row_P])
    for block in np.split(chosen, np.flatnonzero(np.diff(begin_R[row_P[chosen]] // PAIRS)) + 1):
        if len(block):
            rows, row = np.unique(row_P[block], return_inverse=True)
            tokens, token = np.unique(token_P[block], return_inverse=True)
            logits = model.logits(hidden_RD[tensor(rows, model)], tensor(tokens, model))
            logit_P[block] = logits[tensor(row, model), tensor(token, model)].cpu().numpy()
    highest_R = np.maximum.reduceat(logit_P, begin_R)
    sum_R = np.add.reduceat(np.exp(logit_P - highest_R[row_P]), begin_R)
    return logit_P - (highest_R + np.log(sum_R))[row_P]
