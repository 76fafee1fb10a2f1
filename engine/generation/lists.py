"""Write lists of neighbours as prompts write them: training text that a small model needs.

Not of the papers. Their LLaMA with 7B parameters has read enough lists before it sees the corpus; a
model that begins with the corpus alone has not, and its continuation of a list is close to chance. So
lists are made from what the corpus' own retrieval index holds, without any label: an entity and two
neighbours stand for the seeds of a query, and the fourth is drawn among those nearest to their mean.

Shape letters: N entities, D dimensions, L lists, B lists at a time, M neighbours that may be drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from engine.generation.prompts import LAST_WORD, SEEDS_SHOWN, name_text, similar_text

Lists = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

NEAREST = 50
"""Neighbours among which a list is drawn, M."""

TEMPERATURE = 0.03
"""Temperature of the draw, in units of the cosine: a neighbour 0.1 further away is a thirtieth as likely."""

SIMILAR_SHARE = 1 / 3
"""Lists of which two entities are also written as "a is similar to b", the template of equation 8."""

_LISTS_PER_BATCH = 1024


def neighbour_lists(
    vectors_ND: Vectors, penalty_N: npt.NDArray[np.float32], per_entity: int, seed: int
) -> Lists:
    """Return lists of four entities, int64 [L, 4], the fourth drawn near the mean of the first three.

    Args:
        vectors_ND: unit vectors of one view; rows of zeros (no vector) are in no list.
        penalty_N: taken off each entity's similarity (hubs would be in every list).
        per_entity: lists that each entity begins; L = N' * per_entity for N' entities with a vector.
        seed: of the draws.
    """
    random = np.random.default_rng(seed)
    there = np.flatnonzero(vectors_ND.any(axis=1))
    if len(there) <= SEEDS_SHOWN:
        return np.empty((0, SEEDS_SHOWN + 1), np.int64)
    vectors_ND, penalty_N = vectors_ND[there], penalty_N[there]
    lists = []
    for first in np.array_split(np.arange(len(there)), -(-len(there) // _LISTS_PER_BATCH)):
        near_BM, scores_BM = _nearest(vectors_ND, penalty_N, first[:, None])
        for _ in range(per_entity):
            companions = _drawn(near_BM, scores_BM, SEEDS_SHOWN - 1, random)
            seeds = random.permuted(np.concatenate([first[:, None], companions], axis=1), axis=1)
            wanted = _drawn(*_nearest(vectors_ND, penalty_N, seeds), 1, random)
            lists.append(there[np.concatenate([seeds, wanted], axis=1)])
    return np.concatenate(lists)


def list_lines(names: Sequence[str], lists: Lists, seed: int) -> Iterator[str]:
    """Yield each list in a random order as a line, and of some of them that two are similar."""
    random = np.random.default_rng(seed)
    similar = random.random(len(lists)) < SIMILAR_SHARE
    for row, also in zip(lists[random.permutation(len(lists))], similar, strict=True):
        *seeds, wanted = (names[i] for i in row)
        yield f"{', '.join(seeds)} {LAST_WORD}{name_text(wanted)}"
        if also:
            a, b = (names[i] for i in random.choice(row, 2, replace=False))
            yield f"{similar_text(a)}{name_text(b)}"


def _nearest(
    vectors_ND: Vectors, penalty_N: npt.NDArray[np.float32], seeds: Lists
) -> tuple[Lists, npt.NDArray[np.float32]]:
    """Return the M nearest of each row's mean but its own entities, and their scores, both [B, M]."""
    scores_BN = vectors_ND[seeds].mean(axis=1) @ vectors_ND.T - penalty_N
    np.put_along_axis(scores_BN, seeds, -np.inf, axis=1)
    m = min(NEAREST, scores_BN.shape[1] - seeds.shape[1])
    near_BM = np.argpartition(-scores_BN, m - 1, axis=1)[:, :m]
    return near_BM, np.take_along_axis(scores_BN, near_BM, axis=1)


def _drawn(near_BM: Lists, scores_BM: npt.NDArray[np.float32], n: int, random: np.random.Generator) -> Lists:
    """Draw n different ones of each row, by the softmax of their scores (Gumbel's trick), [B, n]."""
    keys = scores_BM / TEMPERATURE + random.gumbel(size=scores_BM.shape)
    return np.take_along_axis(near_BM, np.argsort(-keys, axis=1)[:, :n], axis=1)
