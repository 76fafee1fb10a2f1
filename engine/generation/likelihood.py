"""Score the likelihood of one entity's name given another's (GenExpan, section 5.2, equation 8).

    s(e, e') = P(e' | "{e} is similar to") ** (1 / |e'|)

with |e'| the tokens of " {e'}" after the word "to" and probabilities over the whole vocabulary. It does
not depend on the query: pairs are cached across queries, within a bound.

Shape letters: P pairs, n candidates e, t targets e'.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from engine.errors import QueryError
from engine.generation.model import LanguageModel
from engine.generation.prompts import similar_text
from engine.generation.trie import MAX_TOKENS
from engine.generation.trie_scores import BATCH_TOKENS, PrefixTrees, logprobs
from engine.query import Ids, Scores

Index = npt.NDArray[np.int64]

Request = tuple[Ids, Sequence[int | str]]
"""Candidates e, int32 [n], and targets e' [t], as entity ids; a target without one by its name."""

STRIDE = 1 << 31
"""A pair's key is e * STRIDE + e'. Targets without an id get numbers after the vocabulary's."""

WAYS = 8
"""Places that a cached pair may take."""

PART = 1 << 16
"""Pairs that are computed at a time."""


class Likelihood:
    """A cached scorer of pairs of entities by one language model. For one thread at a time.

    Args:
        model: the language model.
        names: of all entities, by id.
        cached_pairs: pairs kept in memory, at 20 bytes each; the least recently used make room.
        batch_tokens: tokens of a forward pass. A candidate is a row of its prefix and of its targets'
            tokens, what these share held once, so that a batch of 4,096 tokens has about 200 candidates
            with three targets. See :func:`engine.generation.trie_scores.name_logprobs` for its memory.
    """

    def __init__(
        self,
        model: LanguageModel,
        names: Sequence[str],
        cached_pairs: int = 4_000_000,
        batch_tokens: int = BATCH_TOKENS,
    ) -> None:
        self.model, self.names, self.batch_tokens = model, names, batch_tokens
        self._cache = _PairCache(cached_pairs)
        self.hits = self.misses = 0

    def with_own_counts(self) -> Likelihood:
        """Return the same with the same memory, whose ``hits`` and ``misses`` (pairs) begin at zero."""
        other = copy(self)
        other.hits = other.misses = 0
        return other

    @property
    def key(self) -> str:
        """Stands for the model: scores of equal keys are interchangeable."""
        return self.model.fingerprint

    def __call__(self, requests: Sequence[Request]) -> list[Scores]:
        """Return s(e, e') of each request's candidates (rows) and targets (columns), float32 [n, t].

        All requests' pairs that are not cached are computed together, every pair once. Those of
        targets given by name are not cached: they may never occur again.

        Raises:
            QueryError: a name that is too long.
        """
        if not requests:
            return []
        new = list(dict.fromkeys(t for _, targets in requests for t in targets if isinstance(t, str)))
        number = {name: len(self.names) + i for i, name in enumerate(new)}
        keys = [
            np.asarray(candidates, np.int64)[:, None] * STRIDE
            + np.array([number[t] if isinstance(t, str) else t for t in targets], np.int64)[None, :]
            for candidates, targets in requests
        ]
        keys_P = np.concatenate([k.ravel() for k in keys])
        scores_P, known_P = self._cache.get(keys_P)
        missing, place = np.unique(keys_P[~known_P], return_inverse=True)
        if len(missing):
            parts = [missing[start : start + PART] for start in range(0, len(missing), PART)]
            computed = np.concatenate([self._compute(part, new) for part in parts])
            scores_P[~known_P] = computed[place]
            lasting = missing % STRIDE < len(self.names)
            self._cache.put(missing[lasting], computed[lasting])
        self.hits += int(known_P.sum())
        self.misses += len(missing)
        bounds = np.cumsum([k.size for k in keys])[:-1]
        return [s.reshape(k.shape) for s, k in zip(np.split(scores_P, bounds), keys, strict=True)]

    def means(self, requests: Sequence[Request]) -> list[Scores]:
        """Return each candidate's mean score over its request's targets, float32 [n].

        sco+ where the targets are the positive seeds, sco- where they are the negative ones; zeros where
        there is no target.
        """
        return [
            s.mean(axis=1, dtype=np.float64).astype(np.float32)
            if s.shape[1]
            else np.zeros(len(s), np.float32)
            for s in self(requests)
        ]

    def _compute(self, keys_P: Index, new: Sequence[str]) -> Scores:
        """Return s of pairs e * STRIDE + e', ascending; ``new`` are the names after the vocabulary's."""
        candidate_P, target_P = np.divmod(keys_P, STRIDE)
        candidates, tree_P = np.unique(candidate_P, return_inverse=True)
        targets, target_P = np.unique(target_P, return_inverse=True)
        n = len(self.names)
        names = [self.names[e] if e < n else new[e - n] for e in targets.tolist()]
        sequences = self.model.encode_after([f" {name}" for name in names], "to")
        for name, own in zip(names, sequences, strict=True):
            if len(own) > MAX_TOKENS:  # the vocabulary's names were checked when the trie was built
                raise QueryError(
                    f"{name[:40]!r}…: a name of {len(own)} tokens; at most {MAX_TOKENS} are taken"
                )
        in_order = sorted(range(len(targets)), key=sequences.__getitem__)
        rank = np.empty(len(targets), np.int64)
        rank[in_order] = np.arange(len(targets))
        order = np.lexsort((rank[target_P], tree_P))
        length = np.array([len(s) for s in sequences])[target_P[order]]
        tokens = np.concatenate([sequences[i] for i in target_P[order].tolist()])
        prompts = [self.model.encode(similar_text(self.names[e])) for e in candidates]
        self.model.check_length(max(map(len, prompts)) + int(length.max()))
        trees = PrefixTrees.build(prompts, tokens, length, tree_P[order])
        scores_P = np.empty(len(keys_P), np.float32)
        scores_P[order] = np.exp(logprobs(self.model, trees, "vocabulary", self.batch_tokens) / length)
        return scores_P


class _PairCache:
    """A bounded table from keys (from 0) to scores, looked up and filled by vector operations.

    A key's hash names a bucket, and it may lie in any place there; a full bucket gives up its least
    recently used entry.
    """

    def __init__(self, capacity: int) -> None:
        ways = min(WAYS, capacity)
        shape = (capacity // ways, ways)
        # Zeros take no memory until they are written.
        self._keys = np.zeros(shape, np.int64)  # key + 1; 0: free
        self._scores = np.zeros(shape, np.float32)
        self._used = np.zeros(shape, np.int64)
        self._clock = 0

    def __len__(self) -> int:
        return int(np.count_nonzero(self._keys))

    def get(self, keys_P: Index) -> tuple[Scores, npt.NDArray[np.bool_]]:
        """Return the scores [P] (anything where unknown) and whether each key is known [P]."""
        self._clock += 1
        bucket = self._bucket(keys_P)
        same = self._keys[bucket] == keys_P[:, None] + 1
        known, way = same.any(axis=1), same.argmax(axis=1)
        self._used[bucket[known], way[known]] = self._clock
        return self._scores[bucket, way], known

    def put(self, keys_P: Index, scores_P: Scores) -> None:
        """Remember distinct keys that are not known yet, as far as their buckets hold them."""
        bucket = self._bucket(keys_P)
        order = np.argsort(bucket, kind="stable")
        bucket = bucket[order]
        rank = np.arange(len(bucket)) - np.searchsorted(bucket, bucket)
        held = rank < self._keys.shape[1]
        order, bucket, rank = order[held], bucket[held], rank[held]
        oldest_first = np.argsort(self._used[bucket], axis=1, kind="stable")
        way = np.take_along_axis(oldest_first, rank[:, None], axis=1)[:, 0]
        self._keys[bucket, way] = keys_P[order] + 1
        self._scores[bucket, way] = scores_P[order]
        self._used[bucket, way] = self._clock

    def _bucket(self, keys_P: Index) -> Index:
        mixed = (keys_P.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        return (mixed % np.uint64(len(self._keys))).astype(np.int64)
