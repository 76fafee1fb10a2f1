"""Share the prefixes of token sequences: trees of continuations as flat arrays, edges in preorder.

Shape letters: E edges (a token after a distinct prefix), S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Index = npt.NDArray[np.int64]


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
        sequence_E, depth_E = ragged(shared_S, kept_S - shared_S)
        tree_E = tree_S[sequence_E]
        n = len(depth_E)
        parent_E, size_E = np.arange(n) - 1, np.ones(n, np.int64)
        by_depth = levels(depth_E)
        for above, level in pairwise(by_depth):
            # In preorder the parent is the last edge before with one token less.
            parent_E[level] = above[np.searchsorted(above, level) - 1]
        for level in reversed(by_depth[1:]):
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


def _shared_with_previous(tokens: Index, length_S: Index, tree_S: Index) -> Index:
    """Return how many first tokens each sequence has in common with the one before it in its tree."""
    sequence, column = ragged(np.zeros_like(length_S), length_S)
    padded_SL = np.full((len(length_S), length_S.max(initial=0)), -1)
    padded_SL[sequence, column] = tokens
    same_SL = np.logical_and.accumulate(padded_SL[1:] == padded_SL[:-1], axis=1).sum(1)
    shared_S = np.minimum(same_SL, length_S[1:]) * (tree_S[1:] == tree_S[:-1])
    return np.append(0, shared_S)[: len(length_S)]


def levels(depth_E: Index) -> list[Index]:
    """Return the edges of each depth, ascending; nothing for no edges."""
    if not len(depth_E):
        return []
    order = np.argsort(depth_E, kind="stable")
    bounds = np.searchsorted(depth_E[order], np.arange(1, depth_E.max() + 1))
    return np.split(order, bounds)


def ragged(first: Index, count: Index) -> tuple[Index, Index]:
    """Return the numbers first[i], first[i] + 1, … (count[i] of them) of all i, after each i."""
    i = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    return i, first[i] + within


def joined(parts: Sequence[npt.ArrayLike]) -> Index:
    """Return some arrays one after another, int64."""
    return np.concatenate([np.asarray(part, np.int64) for part in parts])
