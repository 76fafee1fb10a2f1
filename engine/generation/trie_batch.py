"""Walk the tries of a batch of queries in one call.

Queries that share a trie are answered by one call to it; most often all do. Restricted tries, one a
query, are walked one after the other.

Shape letters: Q queries, B beams, P pairs of a beam and a token that its trie allows next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.generation.trie import Trie
from engine.query import Ids, Scores

Places = npt.NDArray[np.int64]


class TrieBatch:
    """One trie a query.

    Args:
        tries: Q of them; the same object where queries share one.
        lookahead: each query's of its trie's nodes, float32 [M] (:mod:`engine.generation.lookahead`); None
            for a query without.
    """

    def __init__(self, tries: Sequence[Trie], lookahead: Sequence[Scores | None] = ()) -> None:
        distinct = {id(trie): trie for trie in tries}
        number = {key: place for place, key in enumerate(distinct)}
        self._tries = list(distinct.values())
        self._of_Q = np.array([number[id(trie)] for trie in tries], np.int64)
        self._lookahead = {query: ahead for query, ahead in enumerate(lookahead) if ahead is not None}
        self.depth_Q = np.array([trie.depth for trie in tries], np.int64)

    def children(self, query_B: Places, node_B: Places) -> tuple[Places, Places, Places]:
        """Return what may follow each node: (parent, child, token), int64 [P] each.

        ``parent`` is an index into ``node_B`` and ascends; children of one parent ascend by token.
        """
        if len(self._tries) == 1:
            return self._tries[0].children(node_B)
        parts = []
        for trie, at in self._split(query_B):
            parent, child, token = trie.children(node_B[at])
            parts.append((at[parent], child, token))
        if not parts:
            return node_B, node_B, node_B
        parent_P, child_P, token_P = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        order = np.argsort(parent_P, kind="stable")
        return parent_P[order], child_P[order], token_P[order]

    def tokens_left(self, query_B: Places, node_B: Places) -> Places:
        """Return how many tokens are still to come after each leaf, int64 [B]; -1 where it branches."""
        left_B = np.full(len(node_B), -1)
        for trie, at in self._split(query_B):
            at = at[trie.is_leaf(node_B[at])]
            left_B[at] = trie.tail_length(node_B[at])
        return left_B

    def next_tokens(self, query_B: Places, leaf_B: Places, left_B: Places) -> Places:
        """Return the token that must follow in each leaf of which ``left_B`` >= 1 are still to come."""
        token_B = np.empty(len(leaf_B), np.int64)
        for trie, at in self._split(query_B):
            offset = trie.tail_length(leaf_B[at]) - left_B[at]
            token_B[at] = trie.tail_token(leaf_B[at], offset)
        return token_B

    def entities_at(self, query: int, leaf: int) -> Ids:
        """Return the entities of a leaf, ascending."""
        return self._tries[self._of_Q[query]].entities_at(leaf)

    def steered(
        self, logprob_B: npt.NDArray[np.float64], query_B: Places, node_B: Places
    ) -> npt.NDArray[np.float64]:
        """Return log-probabilities with the nodes' look-ahead, float64 [B]; unchanged if there is none."""
        if not self._lookahead:
            return logprob_B
        steered_B = logprob_B.copy()
        for query, ahead_M in self._lookahead.items():
            at = np.flatnonzero(query_B == query)
            steered_B[at] += ahead_M[node_B[at]]
        return steered_B

    def _split(self, query_B: Places) -> Iterator[tuple[Trie, Places]]:
        """Yield each trie that is in use and the places of its beams."""
        if len(self._tries) == 1:
            yield self._tries[0], np.arange(len(query_B))
            return
        of_B = self._of_Q[query_B]
        for number in np.unique(of_B):
            yield self._tries[number], np.flatnonzero(of_B == number)
