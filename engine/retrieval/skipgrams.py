"""Count the skip-grams around every entity's mentions: the context features of SetExpan and CaSE.

A skip-gram is what stands around a mention, with a gap in its place: "visited __ in". Of each mention six
are taken, those of SetExpan's authors' program: the words and punctuation signs from 1, 2 or 3 places before
the mention to 1 place after it, and from 1 to 2 or 3, from 2 to 2. A window ends with its sentence (open
there): one that finds less than it wants is shorter, those that become equal count once a mention, and one
without any word is none. (SetExpan's second kind of features, the entities' types in Probase, comes from
outside the corpus and is left out.)

A skip-gram of one entity alone relates it to no other and is not kept. It is stored by number, not by its
text: what the methods ask is who shares which.

**Size.** UltraWiki's 50,973 entities have 394,097 sentences, a mention each, so at most 6 x 394,097 = 2.4 M
pairs (entity, skip-gram) of 8 B: 19 MB, before those of one entity are dropped. With 1.2 MB of row starts
that is less than a view of 384 numbers (78 MB). They are stored row by row (CSR) and read whole.

Knows nothing of corpora or queries. Shape letters: N entities, F skip-grams, P pairs (entity, skip-gram).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Ids
from engine.retrieval.by_entity import ByEntity
from engine.storage.mapped import flush, new_array
from engine.storage.npy_rows import mapped_rows
from engine.text.hashes import Hashes
from engine.text.words import tokens_of

if TYPE_CHECKING:  # loaded with the first matrix: what only describes a pipeline does without
    from scipy.sparse import csr_matrix

SKIPGRAMS = "skipgrams"
"""A bundle's folder with the counts."""

WINDOWS = ((1, 1), (2, 1), (3, 1), (1, 3), (2, 2), (1, 2))
"""Tokens before and after the mention."""

BEFORE, AFTER = (max(side) for side in zip(*WINDOWS, strict=True))

MIN_ENTITIES = 2
"""Entities that a skip-gram must have to be kept."""


def skipgrams_of(sentence: str, start: int, end: int) -> set[str]:
    """Return the skip-grams of a mention at characters [start, end) of a sentence."""
    before, after = tokens_of(sentence[:start])[-BEFORE:], tokens_of(sentence[end:])[:AFTER]
    found = {
        f"{' '.join(before[max(len(before) - left, 0) :])} __ {' '.join(after[:right])}"
        for left, right in WINDOWS
    }
    return {one for one in found if any(sign.isalnum() for sign in one)}


class SkipGrams:
    """How often each entity was met with each skip-gram.

    Args:
        starts_N1: int64 [N + 1], where each entity's pairs begin.
        features_P: int32, the skip-grams' numbers, ascending within an entity.
        counts_P: int32, the mentions of the entity in it.
    """

    def __init__(self, starts_N1: npt.NDArray[np.int64], features_P: Ids, counts_P: Ids) -> None:
        self.starts_N1, self.features_P, self.counts_P = starts_N1, features_P, counts_P
        self.n_features = int(features_P.max(initial=-1)) + 1
        self.popularity_F = np.bincount(features_P, minlength=self.n_features)
        """Entities of each skip-gram."""
        self.mentions_F = np.bincount(features_P, counts_P, self.n_features)
        """Mentions in each skip-gram, of all entities."""
        self.present_N = np.diff(starts_N1) > 0

    @classmethod
    def collect(cls, entities: Ids, hashes: Hashes, counts: Ids, n_entities: int) -> SkipGrams:
        """Add up counts [n] by entity and skip-gram, and drop the skip-grams of too few entities.

        Numbers are given in the order of the hashes, so that they depend on no order of the corpus.
        """
        unique, features = np.unique(hashes, return_inverse=True)
        pairs, places = np.unique(entities.astype(np.int64) * len(unique) + features, return_inverse=True)
        sums = np.bincount(places, counts, len(pairs)).astype(np.int32)
        owners, features = np.divmod(pairs, max(len(unique), 1))
        kept_F = np.bincount(features, minlength=len(unique)) >= MIN_ENTITIES
        kept = kept_F[features]
        numbers_F = np.cumsum(kept_F) - 1
        starts = np.searchsorted(owners[kept], np.arange(n_entities + 1))
        return cls(starts.astype(np.int64), numbers_F[features[kept]].astype(np.int32), sums[kept])

    @classmethod
    def write_ranges(cls, folder: Path, n_entities: int, ranges: Callable[[], Iterable[SkipGrams]]) -> None:
        """Write what :meth:`collect` makes of all hashes together, of ranges of hashes: no process holds all.

        Args:
            folder: receives the files.
            n_entities: N.
            ranges: reads what ``collect`` makes of each range, in ascending order; is called twice.
        """
        folder.mkdir(parents=True, exist_ok=True)
        counts_N = np.zeros(n_entities, np.int64)
        for one in ranges():
            counts_N += np.diff(one.starts_N1)
        by_entity, known = ByEntity(counts_N), 0
        np.save(folder / "starts.npy", by_entity.starts_N1, allow_pickle=False)
        n_pairs = (int(by_entity.starts_N1[-1]),)
        features_P = new_array(folder / "features.npy", np.int32, n_pairs)
        counts_P = new_array(folder / "counts.npy", np.int32, n_pairs)
        for one in ranges():
            places = by_entity.places(np.repeat(np.arange(n_entities), np.diff(one.starts_N1)))
            features_P[places], counts_P[places] = one.features_P + known, one.counts_P
            known += one.n_features
        flush(features_P, counts_P)

    @classmethod
    def read(cls, folder: Path) -> SkipGrams:
        """Map the files of a folder: the processes of a machine share what they read of them.

        Raises:
            BundleError: they do not fit each other.
        """
        starts, features, counts = (
            mapped_rows(folder / f"{name}.npy") for name in ("starts", "features", "counts")
        )
        kinds = (starts.dtype, features.dtype, counts.dtype) == (np.int64, np.int32, np.int32)
        if not kinds or features.shape != counts.shape or not len(starts) or starts[-1] != len(features):
            raise BundleError(
                f"{folder.name}: starts {starts.dtype} {starts.shape}, features {features.dtype} "
                f"{features.shape} and counts {counts.dtype} {counts.shape} do not make skip-grams; build "
                "the index again"
            )
        return cls(starts, features, counts)

    def write(self, folder: Path) -> None:
        """Write ``starts.npy``, ``features.npy`` and ``counts.npy``."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in (
            ("starts", self.starts_N1),
            ("features", self.features_P),
            ("counts", self.counts_P),
        ):
            np.save(folder / f"{name}.npy", array, allow_pickle=False)

    def __len__(self) -> int:
        return len(self.starts_N1) - 1

    def matrix(self, values_P: npt.NDArray[np.float64]) -> csr_matrix:
        """Return values of the pairs as a matrix [N, F]."""
        from scipy.sparse import csr_matrix

        shape = (len(self), self.n_features)
        return csr_matrix((values_P, self.features_P, self.starts_N1), shape=shape, copy=True)

    @cached_property
    def weights(self) -> csr_matrix:
        """The TF-IDF weights of SetExpan's equation 1, float64 [N, F].

        With X the counts and |V| the entities that have a skip-gram,

            f(e, c) = log(1 + X(e, c)) * (log |V| - log sum over e' of X(e', c))

        It is below zero where a skip-gram has more mentions than there are entities.
        """
        rarity_F = np.log(max(int(self.present_N.sum()), 1)) - np.log(np.maximum(self.mentions_F, 1))
        return self.matrix(np.log1p(self.counts_P) * rarity_F[self.features_P])
