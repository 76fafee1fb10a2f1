"""Run trees of continuations through a language model: the hidden state after every prefix, once each.

A prompt and all its continuations are one row of tokens: the prompt, then each shared prefix once, in
preorder. An attention mask lets a token see the prompt and its own prefix only, and its position is its
depth, so every hidden state is the one that the prefix alone would give. The work is one token for each
distinct prefix, in a few large forward passes, and no key-value cache is kept. Models that take no such
mask (BLOOM's positions are those of the row, GPT-Neo's local attention looks back in it) go level by level,
with a cache.

Shape letters: R rows of tokens or of hidden states, L tokens of a row, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from engine.generation.model import LanguageModel
from engine.generation.prefix_trees import Index, PrefixTrees, joined, levels

Tensor = torch.Tensor

ROW_TOKENS = 512
"""Longest row: a larger tree is cut, as attention grows with the square of a row."""


class _Row(NamedTuple):
    """A prompt and the edges that are read after it; the first ``known`` are in an earlier row too."""

    tree: int
    edges: Index
    known: int
    first: bool


def hidden_states(
    model: LanguageModel, trees: PrefixTrees, batch_tokens: int
) -> Iterator[tuple[Index, Tensor]]:
    """Yield what was read (numbers [R]) and the last hidden states [R, D], every inner one once."""
    prompt_length = np.array([len(p) for p in trees.prompts])
    longest = int(prompt_length.max() + trees.depth_E.max() + 1)
    in_one_row = takes_tree_masks(model, longest)
    # A prompt is run again for each part of its tree: parts are long where prompts are.
    most = max(ROW_TOKENS, 2 * longest) - longest if in_one_row else max(1, batch_tokens // longest)
    rows = sorted(_rows(trees, most), key=lambda row: prompt_length[row.tree] + len(row.edges))
    run = tree_pass if in_one_row else level_pass
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


def whole_rows(trees: PrefixTrees) -> list[_Row]:
    """Return a row for each tree, however large it is."""
    return list(_rows(trees, max(1, len(trees.token_E))))


def takes_tree_masks(model: LanguageModel, longest: int) -> bool:
    """Return whether a tree attention mask and explicit positions lead to what the model itself computes.

    With a window over the last tokens they do while no path is longer than it. Other kinds of local
    attention look back in the row, where a token's path does not lie in one piece.

    Args:
        model: the language model.
        longest: tokens of a prompt and a path after it, at most.
    """
    config = model.model.config
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    return (
        model.takes_tree_masks
        and model.takes_positions
        and not getattr(config, "alibi", False)
        and kinds <= {"full_attention", "sliding_attention"}
        and (window is None or longest <= window)
        and not _other_windows(config)
        and config._attn_implementation in ("sdpa", "eager")
    )


WINDOWS = ("sliding_window", "use_sliding_window", "max_window_layers", "sliding_window_pattern")
"""Entries of a configuration about windows whose effect is known."""


def _other_windows(config: Any) -> bool:
    """Return whether a configuration speaks of local attention in other words than :data:`WINDOWS`."""
    told = vars(config).items()
    words = ("window", "attention_chunk", "local_attention")
    local = {name for name, value in told if value and any(word in name for word in words)}
    kinds = str(getattr(config, "attention_layers", ""))
    return bool({name.lstrip("_") for name in local} - set(WINDOWS)) or "local" in kinds


def tree_pass(model: LanguageModel, trees: PrefixTrees, rows: Sequence[_Row]) -> tuple[Index, Tensor]:
    """Run all rows at once. Padding sees the prompt, and nothing sees it."""
    longest = max(len(trees.prompts[row.tree]) + len(row.edges) for row in rows)
    batch = _padded(trees, rows, longest)
    output = model.body(
        input_ids=tensor(batch.ids_RL, model),
        attention_mask=_tree_mask(model, batch),
        position_ids=tensor(batch.positions_RL, model),
        use_cache=False,
    )
    read, at = _read_places(trees, rows, longest)
    return read, output.last_hidden_state.flatten(0, 1)[tensor(at, model)]


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
    place_RL, end_RL = tensor(batch.place_RL, model), tensor(batch.end_RL, model)
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
    return joined(read), joined(at)


def level_pass(model: LanguageModel, trees: PrefixTrees, rows: Sequence[_Row]) -> tuple[Index, Tensor]:
    """Run the rows' prompts, then all edges with one token before them, then those with two …"""
    n = len(trees.token_E)
    state = model.prefill([trees.prompts[row.tree] for row in rows])
    # An edge that is in two rows is run in both, and distinguished by the row.
    row_N = np.repeat(np.arange(len(rows)), [len(row.edges) for row in rows])
    edge_N = joined([row.edges for row in rows])
    known_N = joined([np.arange(len(row.edges)) < row.known for row in rows]).astype(bool)
    firsts = np.array([row.first for row in rows])
    read = [np.array([n + row.tree for row in rows])[firsts]]
    hidden = [state.hidden_BD[tensor(np.flatnonzero(firsts), model)]]
    key_N, above = row_N * n + edge_N, np.arange(len(rows))
    for depth, level in enumerate(levels(trees.depth_E[edge_N])):
        rows_before = row_N[level]
        if depth:
            rows_before = np.searchsorted(above, row_N[level] * n + trees.parent_E[edge_N[level]])
        tokens = torch.from_numpy(trees.token_E[edge_N[level]])
        state = model.advance(state, torch.from_numpy(rows_before), tokens)
        own = np.flatnonzero(~known_N[level])
        read.append(edge_N[level][own])
        hidden.append(state.hidden_BD[tensor(own, model)])
        above = key_N[level]
    return joined(read), torch.cat(hidden)


def tensor(values: npt.NDArray[np.integer], model: LanguageModel) -> Tensor:
    """Return numbers as a tensor on the model's device."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(model.device)
