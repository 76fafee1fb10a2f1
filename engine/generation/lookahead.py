"""Steer generation by retrieval: what a beginning of a name may still lead to (planning ahead).

A beam search knows the probability of a name's beginning only, and drops beginnings of names that would have
been good. Retrieval has scored all names before the first token: a node's look-ahead is the best score
below it, as in PAG, which generates document identifiers (Zeng et al., "Planning Ahead in Generative
Retrieval", SIGIR 2024).

    lookahead(v) = weight * (max over entities e below v of s(e) - max of s) / std(s)

with s the mean cosine to the positive seeds. So it is 0 on the way to the nearest entity, and never rises
from a node to its children: a search that adds it to log-probabilities keeps its bounds. It stays at the
leaves, where it is the entity's own score.

Shape letters: E entities of a trie, S sequences, M nodes.
"""

from __future__ import annotations

import itertools

import numpy as np

from engine.generation.trie import Trie
from engine.query import Scores


def lookahead(trie: Trie, products_E: Scores, weight: float) -> Scores:
    """Return the look-ahead of each node, float32 [M], at most 0.

    Args:
        trie: with at least one entity.
        products_E: mean cosines of its ``entity_ids`` to the positive seeds; 0: the entity has no vector.
        weight: log-probability (nats) that a standard deviation of them counts for.
    """
    return best_below(trie, np.float32(weight) * standardised(products_E))


def standardised(products_E: Scores) -> Scores:
    """Return how many standard deviations each is below the best one, float32 [E], at most 0.

    Entities without a vector (their product is 0) are as far below as the last of the others.
    """
    has_vector = products_E != 0
    if not has_vector.any():
        return np.zeros_like(products_E)
    known = products_E[has_vector].astype(np.float64)
    spread = known.std() or 1.0
    scores_E = np.where(has_vector, products_E, known.min())
    return np.minimum((scores_E - known.max()) / spread, 0).astype(np.float32)


def best_below(trie: Trie, scores_E: Scores) -> Scores:
    """Return the best score of the entities below each node, float32 [M].

    Args:
        trie: with at least one entity.
        scores_E: of its ``entity_ids``.
    """
    in_order = scores_E[np.searchsorted(trie.entity_ids, trie.entities)]
    best_S = np.maximum.reduceat(in_order, trie.entity_starts[:-1])
    best_M = best_S[trie.node_sequence]  # of leaves; the nodes above are overwritten
    levels = trie.level_starts
    # Breadth first: the children of a level's nodes, one after the other, are the whole next level.
    for start, end in reversed(list(itertools.pairwise(levels.tolist()))):
        first = trie.first_child[start : end + 1]
        branching = np.flatnonzero(np.diff(first))
        if len(branching):
            children = best_M[first[0] : first[-1]]
            best_M[start + branching] = np.maximum.reduceat(children, first[branching] - first[0])
    return best_M
