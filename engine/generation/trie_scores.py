"""Compute the log-probability of every continuation in a tree of them, without a search.

A prompt and all its continuations are one row of tokens: the prompt, then each shared prefix once, in
preorder. An attention mask lets a token see the prompt and its own prefix only, and its position is its
depth, so every hidden state is the one that the prefix alone would give. The work is one token for each
distinct prefix, in a few large forward passes, and no key-value cache is kept. Models that take their
positions from the order of the tokens (BLOOM) take no such mask: they go level by level with a cache.

Shape letters: E edges (a token after a distinct prefix), S sequences, R rows of hidden states, P pairs
of a row and a token after it, L tokens of a row, D dimensions, V tokens of the vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.generation.model import LanguageModel
from engine.generation.trie import Trie
from engine.query import Ids, Scores

Tensor = torch.Tensor
Index = npt.NDArray[np.int64]

Normalise = Literal["allowed", "vocabulary"]

BATCH_TOKENS = 4096
"""Tokens of a forward pass, padding included (level by level: tokens held in the cache)."""

ROW_TOKENS = 512
"""Longest row: a larger tree is cut, as attention grows with the square of a row."""

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
    length_S = _joined([np.diff(trie.starts) for trie in tries])
    trees = PrefixTrees.build(
        prompts,
        _joined([trie.tokens for trie in tries]),
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


@dataclass(frozen=True)
class PrefixTrees:
    """A tree of continuations for each prompt; edges lie in preorder, tree after tree.

    What has been read when an edge is passed is called by the edge's number; the prompt of tree t alone
    is called E + t.

    Attributes:
        prompts: token ids of each tree's prompt.
        tree_E: the tree that an edge belongs to.
        token_E: what is read.
        depth_E: tokens between the prompt and this one.
        parent_E: what was read before, by its number.
        end_E: the first edge after this one that is not below it.
        last_S: the edge that completes each sequence (or leaves it alone, see :meth:`build`).
    """

    prompts: Sequence[Sequence[int]]
    tree_E: Index
    token_E: Index
    depth_E: Index
    parent_E: Index
    end_E: Index
    last_S: Index

    @classmethod
    def build(
        cls,
        prompts: Sequence[Sequence[int]],
        tokens: Index,
        length_S: Index,
        tree_S: Index,
        forced: bool = True,
    ) -> PrefixTrees:
        """Share the prefixes of sequences.

        Args:
            prompts: one a tree.
            tokens: those of all sequences after one another; each has one at least.
            length_S: tokens of each.
            tree_S: the tree of each, ascending; inside a tree sequences are in lexicographic order.
            forced: whether tokens after those that tell a sequence from all others get edges.
        """
        shared_S = _shared_with_previous(tokens, length_S, tree_S)
        kept_S = length_S
        if not forced:
            kept_S = np.minimum(np.maximum(shared_S, np.append(shared_S[1:], 0)) + 1, length_S)
        sequence_E, depth_E = _ragged(shared_S, kept_S - shared_S)
        tree_E = tree_S[sequence_E]
        n = len(depth_E)
        parent_E, size_E = np.arange(n) - 1, np.ones(n, np.int64)
        levels = _levels(depth_E)
        for above, level in pairwise(levels):
            # In preorder the parent is the last edge before with one token less.
            parent_E[level] = above[np.searchsorted(above, level) - 1]
        for level in reversed(levels[1:]):
            np.add.at(size_E, parent_E[level], size_E[level])
        first = depth_E == 0
        parent_E[first] = n + tree_E[first]
        return cls(
            prompts,
            tree_E,
            tokens[(np.cumsum(length_S) - length_S)[sequence_E] + depth_E],
            depth_E,
            parent_E,
            np.arange(n) + size_E,
            np.cumsum(kept_S - shared_S) - 1,
        )


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
    for read, hidden_RD in _hidden_states(model, trees, batch_tokens):
        row_P, place_P = _ragged(first[read], first[read + 1] - first[read])
        edge_P = by_parent[place_P]
        step_E[edge_P] = after(model, hidden_RD, row_P, trees.token_E[edge_P])
    levels = _levels(trees.depth_E)
    for level in levels[1:]:
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
        row, token = (_tensor(a[low:high], model) for a in (row_P - start, token_P))
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
            logits = model.logits(hidden_RD[_tensor(rows, model)], _tensor(tokens, model))
            logit_P[block] = logits[_tensor(row, model), _tensor(token, model)].cpu().numpy()
    highest_R = np.maximum.reduceat(logit_P, begin_R)
    sum_R = np.add.reduceat(np.exp(logit_P - highest_R[row_P]), begin_R)
    return logit_P - (highest_R + np.log(sum_R))[row_P]


class _Row(NamedTuple):
    """A prompt and the edges that are read after it; the first ``known`` are in an earlier row too."""

    tree: int
    edges: Index
    known: int
    first: bool


def _hidden_states(
    model: LanguageModel, trees: PrefixTrees, batch_tokens: int
) -> Iterator[tuple[Index, Tensor]]:
    """Yield what was read (numbers [R]) and the last hidden states [R, D], every inner one once."""
    prompt_length = np.array([len(p) for p in trees.prompts])
    longest = int(prompt_length.max() + trees.depth_E.max() + 1)
    in_one_row = _takes_tree_masks(model, longest)
    # A prompt is run again for each part of its tree: parts are long where prompts are.
    most = max(ROW_TOKENS, 2 * longest) - longest if in_one_row else max(1, batch_tokens // longest)
    rows = sorted(_rows(trees, most), key=lambda row: prompt_length[row.tree] + len(row.edges))
    run = _tree_pass if in_one_row else _level_pass
    batch: list[_Row] = []
    for row in rows:
        # Level by level, every edge of a batch may have to hold its own cache row.
        cost = prompt_length[row.tree] + len(row.edges) if in_one_row else longest * max(len(row.edges), 1)
        if batch and (len(batch) + 1) * cost > batch_tokens:
            yield run(model, trees, batch)
            batch = []
        batch.append(row)
    yield run(model, trees, batch)


def _rows(trees: PrefixTrees, most: int) -> Iterator[_Row]:
    """Cut each tree into rows of at most ``most`` edges that something follows (if it is deep, more)."""
    inner = np.flatnonzero(trees.end_E > np.arange(len(trees.end_E)) + 1)
    used = np.unique(trees.tree_E)
    bounds = np.searchsorted(trees.tree_E[inner], used[1:])
    for tree, edges in zip(used.tolist(), np.split(inner, bounds), strict=True):
        done = 0
        while done < len(edges) or done == 0:
            # In preorder, what the edges of a slice follow is among them or on the way to the first.
            way: list[int] = []
            above = int(trees.parent_E[edges[done]]) if len(edges) else len(trees.end_E)
            while above < len(trees.end_E):
                way.append(above)
                above = int(trees.parent_E[above])
            own = edges[done : done + max(1, most - len(way))]
            yield _Row(tree, np.concatenate([np.array(way[::-1], np.int64), own]), len(way), done == 0)
            done += max(1, len(own))


def _takes_tree_masks(model: LanguageModel, longest: int) -> bool:
    """Return whether the model takes a tree attention mask and explicit positions."""
    config = model.model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        "position_ids" in inspect.signature(model.model.base_model.forward).parameters
        and not getattr(config, "alibi", False)
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or longest <= window)
        and config._attn_implementation in ("sdpa", "eager")
    )


def _tree_pass(model: LanguageModel, trees: PrefixTrees, rows: Sequence[_Row]) -> tuple[Index, Tensor]:
    """Run all rows at once. Padding sees the prompt, and nothing sees it."""
    longest = max(len(trees.prompts[row.tree]) + len(row.edges) for row in rows)
    batch = _padded(trees, rows, longest)
    output = model.model.base_model(
        input_ids=_tensor(batch.ids_RL, model),
        attention_mask=_tree_mask(model, batch),
        position_ids=_tensor(batch.positions_RL, model),
        use_cache=False,
    )
    read, at = _read_places(trees, rows, longest)
    return read, output.last_hidden_state.flatten(0, 1)[_tensor(at, model)]


class _Padded(NamedTuple):
    """Rows of tokens of one length, int64 [R, L] each; R is the rows of the pass here.

    A token sees those whose span of places, from ``place`` to before ``end``, holds its own place. The places
    of a prompt lie before those of all edges, and its spans hold them all.
    """

    ids_RL: Index
    positions_RL: Index
    place_RL: Index
    end_RL: Index


def _padded(trees: PrefixTrees, rows: Sequence[_Row], longest: int) -> _Padded:
    """Lay prompts and edges into rows; padding lies after all edges and its span is empty."""
    n = len(trees.token_E)
    ids, positions = np.zeros((2, len(rows), longest), np.int64)
    place, end = np.full(ids.shape, n), np.zeros_like(ids)
    for r, row in enumerate(rows):
        prompt, edges = trees.prompts[row.tree], row.edges
        cut, stop = len(prompt), len(prompt) + len(edges)
        ids[r, :cut], ids[r, cut:stop] = prompt, trees.token_E[edges]
        positions[r, :cut], positions[r, cut:stop] = np.arange(cut), cut + trees.depth_E[edges]
        place[r, :cut], place[r, cut:stop] = np.arange(-cut, 0), edges
        end[r, :cut], end[r, cut:stop] = n + 1, trees.end_E[edges]
    return _Padded(ids, positions, place, end)


def _tree_mask(model: LanguageModel, batch: _Padded) -> Tensor:
    """Return what is added to attention, [R, 1, L, L]: 0 where a token sees another, else the minimum."""
    place_RL, end_RL = _tensor(batch.place_RL, model), _tensor(batch.end_RL, model)
    sees_RLL = (place_RL[:, None] <= place_RL[..., None]) & (place_RL[..., None] < end_RL[:, None])
    mask_RLL = torch.zeros(sees_RLL.shape, dtype=model.model.dtype, device=model.device)
    return mask_RLL.masked_fill_(~sees_RLL, torch.finfo(model.model.dtype).min)[:, None]


def _read_places(trees: PrefixTrees, rows: Sequence[_Row], longest: int) -> tuple[Index, Index]:
    """Return what is read of a pass (an edge, or n + tree for the end of its prompt), and its place among
    the tokens of all rows one after another.
    """
    n = len(trees.token_E)
    read: list[Index] = []
    at: list[Index] = []
    for r, row in enumerate(rows):
        begin = r * longest + len(trees.prompts[row.tree])
        if row.first:
            read.append(np.array([n + row.tree]))
            at.append(np.array([begin - 1]))
        read.append(row.edges[row.known :])
        at.append(np.arange(begin + row.known, begin + len(row.edges)))
    return _joined(read), _joined(at)


def _level_pass(model: LanguageModel, trees: PrefixTrees, rows: Sequence[_Row]) -> tuple[Index, Tensor]:
    """Run the rows' prompts, then all edges with one token before them, then those with two …"""
    n = len(trees.token_E)
    state = model.prefill([trees.prompts[row.tree] for row in rows])
    # An edge that is in two rows is run in both, and distinguished by the row.
    row_N = np.repeat(np.arange(len(rows)), [len(row.edges) for row in rows])
    edge_N = _joined([row.edges for row in rows])
    known_N = _joined([np.arange(len(row.edges)) < row.known for row in rows]).astype(bool)
    firsts = np.array([row.first for row in rows])
    read = [np.array([n + row.tree for row in rows])[firsts]]
    hidden = [state.hidden_BD[_tensor(np.flatnonzero(firsts), model)]]
    key_N, above = row_N * n + edge_N, np.arange(len(rows))
    for depth, level in enumerate(_levels(trees.depth_E[edge_N])):
        rows_before = row_N[level]
        if depth:
            rows_before = np.searchsorted(above, row_N[level] * n + trees.parent_E[edge_N[level]])
        tokens = torch.from_numpy(trees.token_E[edge_N[level]])
        state = model.advance(state, torch.from_numpy(rows_before), tokens)
        own = np.flatnonzero(~known_N[level])
        read.append(edge_N[level][own])
        hidden.append(state.hidden_BD[_tensor(own, model)])
        above = key_N[level]
    return _joined(read), torch.cat(hidden)


def _shared_with_previous(tokens: Index, length_S: Index, tree_S: Index) -> Index:
    """Return how many first tokens each sequence has in common with the one before it in its tree."""
    sequence, column = _ragged(np.zeros_like(length_S), length_S)
    padded_SL = np.full((len(length_S), length_S.max(initial=0)), -1)
    padded_SL[sequence, column] = tokens
    same_SL = np.logical_and.accumulate(padded_SL[1:] == padded_SL[:-1], axis=1).sum(1)
    shared_S = np.minimum(same_SL, length_S[1:]) * (tree_S[1:] == tree_S[:-1])
    return np.append(0, shared_S)[: len(length_S)]


def _levels(depth_E: Index) -> list[Index]:
    """Return the edges of each depth, ascending; nothing for no edges."""
    if not len(depth_E):
        return []
    order = np.argsort(depth_E, kind="stable")
    bounds = np.searchsorted(depth_E[order], np.arange(1, depth_E.max() + 1))
    return np.split(order, bounds)


def _ragged(first: Index, count: Index) -> tuple[Index, Index]:
    """Return the numbers first[i], first[i] + 1, … (count[i] of them) of all i, after each i."""
    i = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, first[i] + within


def _joined(parts: Sequence[npt.ArrayLike]) -> Index:
    return np.concatenate([np.asarray(part, np.int64) for part in parts])


def _tensor(values: npt.NDArray[np.integer], model: LanguageModel) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(model.device)
