"""Select context features, and rank entities by an ensemble over samples of them (SetExpan, section 3).

Shen et al., "SetExpan: Corpus-Based Set Expansion via Context Feature Selection and Rank Ensemble",
ECML-PKDD 2017. With X the set so far, f(e, c) the weight of skip-gram c for entity e
(:attr:`engine.retrieval.skipgrams.SkipGrams.weights`, its equation 1):

* Selection: of the skip-grams with score(c) = sum over e in X of f(e, c) the Q largest are kept, F.
* Similarity (equation 2), the weighted Jaccard coefficient over a set of skip-grams:
  Sim(e, s | F) = sum over c in F of min(f(e, c), f(s, c)) / sum over c in F of max(f(e, c), f(s, c)).
* Rank ensemble: T times a share alpha of F is drawn, without replacement, and entities are ranked by
  their mean similarity to X over what was drawn; mrr(e) = sum over the T rankings of 1 / rank(e).

**Arithmetic.** As min + max = the sum of both, the denominator is two row sums less the numerator, and the
numerator needs only the columns that the member s has: for one member it is a product of a few hundred rows
by some ten columns with the T samples at once. With at most 30 entities a skip-gram, Q = 150, T = 60 and a
set of 200 members, an iteration costs below 200 x 600 x 20 x 60 = 0.15 G products, whatever N is.

Shape letters: N entities, C candidates, Q selected skip-grams, T samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.query import Ids
from engine.retrieval.skipgrams import SkipGrams

if TYPE_CHECKING:  # loaded with the first matrix: what only describes a pipeline does without
    from scipy.sparse import csc_matrix

Floats = npt.NDArray[np.float64]
Samples = npt.NDArray[np.bool_]

DIGITS = 12
"""Decimals of a similarity that count: the last ones depend on the order of a sum, and would break ties."""


class RankEnsemble:
    """Ranks entities by an ensemble of similarities to a set.

    Args:
        skipgrams: of all entities.
        features: skip-grams that are selected at most, Q.
        popularity: entities of a skip-gram at least and at most; others are not selected.
    """

    def __init__(self, skipgrams: SkipGrams, features: int, popularity: tuple[int, int]) -> None:
        self._rows = skipgrams.weights
        self._columns: csc_matrix = self._rows.tocsc()
        least, most = popularity
        self._usable_F = (skipgrams.popularity_F >= least) & (skipgrams.popularity_F <= most)
        self._features = features

    def select(self, members: Sequence[int]) -> Ids:
        """Return the skip-grams with the largest summed weights of a set, best first, ties by number.

        A skip-gram whose sum is not above zero is not selected.
        """
        scores_F = np.asarray(self._rows[list(members)].sum(axis=0)).ravel()
        chosen = np.flatnonzero(self._usable_F & (scores_F > 0))
        order = np.lexsort((chosen, -scores_F[chosen]))[: self._features]
        return chosen[order].astype(np.int32)

    def similarities(
        self, members: Sequence[int], selected: Ids, samples_TQ: Samples
    ) -> tuple[Ids, Floats, Samples]:
        """Return the entities that have a selected skip-gram, ascending, and their mean similarities.

        Args:
            members: the set.
            selected: skip-grams [Q].
            samples_TQ: which of them each sample holds.

        Returns:
            ids [C], mean similarities float64 [C, T], and whether the entity has a skip-gram of the
            sample, bool [C, T].
        """
        part = self._columns[:, selected]
        ids = np.unique(part.indices)
        place_N = np.full(part.shape[0], -1)
        place_N[ids] = np.arange(len(ids))
        weights_CQ = part[ids].toarray()
        drawn_QT = samples_TQ.T.astype(np.float64)
        sums_CT = weights_CQ @ drawn_QT
        total_CT = np.zeros_like(sums_CT)
        for member in members:
            place = place_N[member]
            if place < 0:
                continue
            own = np.flatnonzero(weights_CQ[place])
            alike = np.flatnonzero(weights_CQ[:, own].any(axis=1))
            least = np.minimum(weights_CQ[np.ix_(alike, own)], weights_CQ[place, own]) @ drawn_QT[own]
            most = sums_CT[alike] + sums_CT[place] - least
            total_CT[alike] += least / np.where(most > 0, most, 1)
        has_CT = (weights_CQ > 0).astype(np.float64) @ drawn_QT > 0
        return ids.astype(np.int32), np.round(total_CT / len(members), DIGITS), has_CT

    def reciprocal_ranks(
        self, members: Sequence[int], selected: Ids, samples_TQ: Samples, ranked_N: Samples, kept: int
    ) -> tuple[Ids, Floats]:
        """Return the entities that come up in a ranking, and the sums of their reciprocal ranks.

        Args:
            members: the set.
            selected: skip-grams [Q].
            samples_TQ: which of them each sample holds.
            ranked_N: the entities that may be ranked.
            kept: places of a ranking that count.

        Returns:
            ids and sums float64, by falling sum, ties by id.
        """
        ids, means_CT, has_CT = self.similarities(members, selected, samples_TQ)
        allowed_C = ranked_N[ids]
        ids, means_CT, has_CT = ids[allowed_C], means_CT[allowed_C], has_CT[allowed_C]
        order_CT = np.argsort(np.where(has_CT, -means_CT, np.inf), axis=0, kind="stable")[:kept]
        sums_C = np.zeros(len(ids))
        for sample, order in enumerate(order_CT.T):
            order = order[has_CT[order, sample]]
            sums_C[order] += 1 / np.arange(1, len(order) + 1)
        best = np.lexsort((ids, -np.round(sums_C, DIGITS)))
        best = best[sums_C[best] > 0]
        return ids[best], sums_C[best]


def draw_samples(count: int, of: int, share: float, random: np.random.Generator) -> Samples:
    """Return ``count`` samples of a share of ``of`` features (one at least), without replacement."""
    size = max(1, round(share * of))
    samples = np.zeros((count, of), bool)
    for row in samples:
        row[random.choice(of, size, replace=False)] = True
    return samples
