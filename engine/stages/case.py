"""Expand by shared contexts and similar vectors at once (CaSE).

Yu, Huang, Rahimi and Allan, "Corpus-based Set Expansion with Lexical Features and Distributed
Representations", SIGIR 2019. What is computed is their program's score (`09-empirical.py` of their
repository, with the settings that it runs with).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.query import Expansion, Ids, Ranking
from engine.retrieval.index import Index, index_file, seed_vectors
from engine.retrieval.opening import open_index
from engine.retrieval.skipgrams import SKIPGRAMS, SkipGrams
from engine.stages.base import Stage, Worker, by_settings
from engine.stages.retrieve import Matching, allowed, evidence_of, matching_of
from engine.stages.setexpan import present_seeds, seeds_without_contexts
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # loaded with the first matrix: what only describes a pipeline does without
    from scipy.sparse import csr_matrix


class CaSE(Stage):
    """Rank the entities that share contexts with the positive seeds, weighted by their similarity to these.

    With n(e, c) the mentions of entity e in skip-gram c, C the skip-grams that are kept, and h the vectors
    of a view,

        score(e) = sum over seeds s of cos(h(e), h(s)) ** power
                   * sum over c in C of n(s, c) / (sum over e' of n(e', c)) * sqrt(n(e, c))

    The first fraction says how far the context is the seed's own; the root damps entities that are met
    often. C holds the skip-grams of more than 10 entities and more than 30 mentions (the program's
    preparation), and of each one the 100 entities count that have the most mentions in it, ties by id.
    Power 7 keeps the sign. Entities that share no kept context with a seed are not ranked.

    The paper has a variant for each kind of vectors (CaSE-W2V, CaSE-BERT). Here they are those of a view
    of the bundle: "mask" is near to CaSE-BERT, a contextual encoder's states, and "lexical" to the other.

    Seeds are never returned, and negative ones are not used. After a stage that recalled candidates, or where
    a query has filters, only those are ranked. Evidence: ``lexical``, the score without cosines.

    Args:
        k: entities wanted; a query that wants more gets it.
        view: of the vectors; none: the lexical features alone.
        power: of the cosine.
        entities: that a kept skip-gram has at least.
        mentions: that a kept skip-gram has at least.
        places: entities of a skip-gram that count.
    """

    k: int = Field(default=200, ge=1)
    view: str | None = "mask"
    power: int = Field(default=7, ge=1)
    entities: int = Field(default=11, ge=1)
    mentions: int = Field(default=31, ge=1)
    places: int = Field(default=100, ge=1)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {"k": (1, 2_000), "power": (1, 100)}

    def needs(self) -> tuple[str, ...]:
        """Name the skip-grams and the view's index."""
        return (SKIPGRAMS, *([index_file(self.view)] if self.view else []))

    def open(self, bundle: Bundle) -> Worker:
        """Read the skip-grams and the view's index.

        Raises:
            BundleError: the bundle lacks one of them.
        """
        skipgrams = bundle.once(SKIPGRAMS, SkipGrams.read)
        lexical = LexicalFeatures.of(skipgrams, self.entities, self.mentions, self.places)
        index = open_index(bundle, self.view) if self.view else None
        matching = matching_of(bundle)

        def run(own: CaSE, expansions: list[Expansion]) -> list[Expansion]:
            return own._run(skipgrams, lexical, index, matching, expansions)

        return lambda expansions: by_settings(self, expansions, run)

    def _run(
        self,
        skipgrams: SkipGrams,
        lexical: LexicalFeatures,
        index: Index | None,
        matching: Matching,
        expansions: list[Expansion],
    ) -> list[Expansion]:
        seeds = [present_seeds(e.query, skipgrams) for e in expansions]
        lexical_nSE = [lexical.scores(own) for own in seeds]
        asked = [
            _candidates(e, bool(own), scores.sum(axis=0), matching)
            for e, own, scores in zip(expansions, seeds, lexical_nSE, strict=True)
        ]
        cosines = self._cosines(index, expansions, seeds, asked)
        return [
            replace(
                e,
                ranking=self._ranking(e, ids, scores[:, ids], near),
                degraded=e.degraded + seeds_without_contexts(self.name, e.query, own),
            )
            for e, own, ids, scores, near in zip(expansions, seeds, asked, lexical_nSE, cosines, strict=True)
        ]

    def _cosines(
        self,
        index: Index | None,
        expansions: Sequence[Expansion],
        seeds: Sequence[Sequence[int]],
        asked: Sequence[Ids],
    ) -> list[npt.NDArray[np.float64]]:
        """Return the cosines [n, S] of each expansion's candidates to its seeds; ones without a view."""
        if index is None or self.view is None:
            return [np.ones((len(ids), len(own))) for ids, own in zip(asked, seeds, strict=True)]
        vectors = seed_vectors(
            index, self.view, [(e.query, own) for e, own in zip(expansions, seeds, strict=True)]
        )
        pairs = [(ids, own.astype(np.float64)) for ids, own in zip(asked, vectors, strict=True)]
        return [found.astype(np.float64) for found in index.similarities(pairs)]

    def _ranking(
        self,
        expansion: Expansion,
        ids: Ids,
        lexical_Sn: npt.NDArray[np.float64],
        cosines_nS: npt.NDArray[np.float64],
    ) -> Ranking:
        scores = (lexical_Sn.T * cosines_nS**self.power).sum(axis=1).astype(np.float32)
        evidence = {
            **evidence_of(expansion.ranking, ids),
            "lexical": lexical_Sn.sum(axis=0).astype(np.float32),
        }
        order = np.lexsort((ids, -scores))
        return Ranking(ids, scores, evidence).take(order).head(max(self.k, expansion.query.wanted))


def _candidates(
    expansion: Expansion, has_seeds: bool, lexical_N: npt.NDArray[np.float64], matching: Matching
) -> Ids:
    """Return the entities that share a context with a seed and may be ranked, ascending."""
    ids = np.flatnonzero(lexical_N > 0).astype(np.int32)
    ids = ids[~np.isin(ids, expansion.query.kept_out)]
    may_be = allowed(expansion, has_seeds, matching)
    return ids if may_be is None else ids[np.isin(ids, may_be)]


class LexicalFeatures(NamedTuple):
    """The kept skip-grams: the seeds' side and the candidates' side of CaSE's score.

    Attributes:
        shares: n(s, c) over the mentions in c, [N, C].
        roots: sqrt(n(e, c)) of the entities that count, [N, C].
    """

    shares: csr_matrix
    roots: csr_matrix

    @classmethod
    def of(cls, skipgrams: SkipGrams, entities: int, mentions: int, places: int) -> LexicalFeatures:
        """Return the features of skip-grams with so many entities and mentions; see :class:`CaSE`."""
        counts, features = skipgrams.counts_P, skipgrams.features_P
        owners = np.repeat(np.arange(len(skipgrams)), np.diff(skipgrams.starts_N1))
        kept_F = (skipgrams.popularity_F >= entities) & (skipgrams.mentions_F >= mentions)
        kept_P = kept_F[features]
        order = np.lexsort((owners, -counts, features))
        first_F = np.searchsorted(features[order], np.arange(skipgrams.n_features))
        place_P = np.empty(len(order), np.int64)
        place_P[order] = np.arange(len(order)) - first_F[features[order]]
        shares_P = np.where(kept_P, counts / np.maximum(skipgrams.mentions_F[features], 1), 0.0)
        roots_P = np.where(kept_P & (place_P < places), np.sqrt(counts), 0.0)
        shares, roots = skipgrams.matrix(shares_P), skipgrams.matrix(roots_P)
        for matrix in (shares, roots):
            matrix.eliminate_zeros()
        return cls(shares, roots)

    def scores(self, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
        """Return each seed's sum over the skip-grams for every entity, float64 [S, N]."""
        found: npt.NDArray[np.float64] = (self.shares[list(seeds)] @ self.roots.T).toarray()
        return found
