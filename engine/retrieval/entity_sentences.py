"""Keep the tokenised sentences of every entity, and estimate what a query makes of them all from a few.

**Estimate.** Under a query an entity is the mean c of its sentences' states with the seeds appended. Most of
what c is, the states u without seeds say already, and their mean over all sentences is known. So of what was
read a linear map from u to c is fitted, c ~ g(u), and what it leaves of an entity's own n sentences is added
as far as it can be trusted (a control variate, fitted by regression and shrunk)::

    c(e)  ~  g(mean over all sentences of u)  +  n / (n + 8) * mean over the n read of (c_i - g(u_i))

A linear map of a mean is the mean of the maps, so that g costs no sentence. Where all sentences of an entity
were read, their mean is taken as it is.

**Order.** The sentences of an entity are in an order whose every beginning has a mean near that of all
(herding: each next one brings the mean nearest), so that the first n are n good ones.

**Size.** Tokens are 4 bytes, 35 a sentence on wikispeedia, and of the first :data:`KEPT_STATES` sentences the
states u are kept in float16: 50,000 entities of 768 dimensions are 307 MB. All is mapped.

Shape letters: N entities, R sentences, T tokens, K kept states, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError

CONTRAST = "contrast"
"""A bundle's view of the contrastive training, and its folder with the encoder and the sentences."""

KEPT_STATES = 4
"""Sentences of an entity whose states without seeds are kept."""

RIDGE = 0.1
"""Share of the states' mean variance that the regression adds to each."""

DOUBT = 8
"""Sentences at which what the map leaves of an entity's own sentences counts half."""

Floats = npt.NDArray[np.floating]
Sentence = npt.NDArray[np.int32]


@dataclass(frozen=True)
class EntitySentences:
    """The sentences of all entities, entity by entity, each entity's in herding order.

    Args:
        starts: int64 [N + 1], where each entity's sentences begin.
        offsets: int64 [R + 1], where each sentence's tokens begin.
        tokens: int32 [T].
        mask_index: int32 [R], the mask's place in its sentence.
        means: float32 [N, D], the mean state without seeds over all sentences of an entity.
        states: float16 [N, K, D], the states without seeds of each one's first sentences, zeros beyond.
    """

    starts: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int32]
    mask_index: npt.NDArray[np.int32]
    means: npt.NDArray[np.float32]
    states: npt.NDArray[np.float16]

    @classmethod
    def of(
        cls,
        n_entities: int,
        entity_R: npt.NDArray[np.int64],
        sentences: Sequence[Sentence],
        mask_R: npt.NDArray[np.int64],
        states_RD: Floats,
    ) -> EntitySentences:
        """Arrange sentences that come in any order.

        Args:
            n_entities: of the vocabulary, N.
            entity_R: the entity of each sentence.
            sentences: token ids.
            mask_R: the mask's place.
            states_RD: states at the mask without seeds.
        """
        by_entity = np.argsort(entity_R, kind="stable")
        starts = np.searchsorted(entity_R[by_entity], np.arange(n_entities + 1))
        dim = states_RD.shape[1]
        means = np.zeros((n_entities, dim), np.float32)
        kept = np.zeros((n_entities, KEPT_STATES, dim), np.float16)
        order = np.empty(len(entity_R), np.int64)
        for entity in np.flatnonzero(np.diff(starts)).tolist():
            own = by_entity[starts[entity] : starts[entity + 1]]
            states_mD = states_RD[own].astype(np.float64)
            herded = herding(states_mD)
            order[starts[entity] : starts[entity + 1]] = own[herded]
            means[entity] = states_mD.mean(axis=0)
            first = states_mD[herded[:KEPT_STATES]]
            kept[entity, : len(first)] = first
        in_order = [sentences[row] for row in order.tolist()]
        tokens = np.concatenate([np.zeros(0, np.int32), *in_order])
        offsets = np.concatenate([[0], np.cumsum([len(one) for one in in_order], dtype=np.int64)])
        return cls(starts, offsets, tokens, mask_R[order].astype(np.int32), means, kept)

    @classmethod
    def read(cls, folder: Path) -> EntitySentences:
        """Map the files of a folder.

        Raises:
            BundleError: they do not fit each other.
        """
        found: dict[str, Any] = {
            field.name: np.load(folder / f"{field.name}.npy", mmap_mode="r", allow_pickle=False)
            for field in fields(cls)
        }
        # The small ones are read: a look-up in them is one of every query.
        own = cls(**found | {name: np.asarray(found[name]) for name in ("starts", "offsets", "mask_index")})
        fits = (
            len(own.starts) == len(own.means) + 1 == len(own.states) + 1
            and own.starts[-1] == len(own.mask_index) == len(own.offsets) - 1
            and own.offsets[-1] == len(own.tokens)
            and own.states.shape[2:] == own.means.shape[1:]
        )
        if not fits:
            raise BundleError(f"{folder.name}: the files do not fit each other; build the index again")
        return own

    def write(self, folder: Path) -> None:
        """Write a file for each array."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name), allow_pickle=False)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def longest(self) -> int:
        """Tokens of the longest sentence."""
        return int(np.diff(self.offsets).max(initial=0))

    def counts(self, entities: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Return how many sentences each of some entities has."""
        return self.starts[entities + 1] - self.starts[entities]

    def rows(self, entity: int, n: int | None) -> range:
        """Return the numbers of an entity's first n sentences; None: all."""
        begin, end = int(self.starts[entity]), int(self.starts[entity + 1])
        return range(begin, end if n is None else min(end, begin + n))

    def ids(self, row: int) -> Sentence:
        """Return the token ids of a sentence."""
        return np.asarray(self.tokens[self.offsets[row] : self.offsets[row + 1]])

    def means_under(
        self, entities: Sequence[int], states: Sequence[Floats], estimated: bool = True
    ) -> npt.NDArray[np.float64]:
        """Return the mean states of some entities under a query, [E, D]; zeros where nothing was read.

        Args:
            entities: ids.
            states: of each one's first sentences with the seeds appended, [n, D].
            estimated: estimate the means over all sentences; else they are those of what was read.
        """
        found = np.zeros((len(entities), self.means.shape[1]))
        for place, own_nD in enumerate(states):
            if len(own_nD):
                found[place] = own_nD.astype(np.float64).mean(axis=0)
        ids = np.asarray(entities, np.int64)
        read = np.array([len(own_nD) for own_nD in states])
        partly = np.flatnonzero((read > 0) & (read < self.starts[ids + 1] - self.starts[ids]))
        if not estimated or not len(partly):
            return found
        # The pairs that are known: of more sentences than are kept no state without seeds is.
        kept = [own_nD[: self.states.shape[1]] for own_nD in states]
        plain = [self.states[entity, : len(own_nD)] for entity, own_nD in zip(entities, kept, strict=True)]
        linear = LinearMap.fitted(np.concatenate(plain), np.concatenate(kept))
        for place in partly.tolist():
            n = len(kept[place])
            mean_D = plain[place].astype(np.float64).mean(axis=0)
            left_D = kept[place].astype(np.float64).mean(axis=0) - linear(mean_D)
            found[place] = linear(self.means[ids[place]]) + n / (n + DOUBT) * left_D
        return found


@dataclass(frozen=True)
class LinearMap:
    """A linear map with an offset, from states without seeds to those with seeds appended.

    Args:
        center_D: mean of the states without seeds.
        target_D: mean of those with seeds.
        weights_DD: of the map between the two, less their means.
    """

    center_D: Floats
    target_D: Floats
    weights_DD: Floats

    @classmethod
    def fitted(cls, plain_RD: Floats, conditioned_RD: Floats) -> LinearMap:
        """Return the ridge regression of pairs of states: :data:`RIDGE` of the mean variance is added."""
        plain, conditioned = plain_RD.astype(np.float64), conditioned_RD.astype(np.float64)
        center, target = plain.mean(axis=0), conditioned.mean(axis=0)
        plain -= center
        products = plain.T @ plain
        # The least number keeps pairs that are all alike solvable: then the map is the mean.
        products.flat[:: len(products) + 1] += RIDGE * np.trace(products) / len(products) + 1e-12
        return cls(center, target, np.linalg.solve(products, plain.T @ (conditioned - target)))

    def __call__(self, plain: Floats) -> Floats:
        """Return where a state without seeds is mapped to, [D]."""
        found: Floats = self.target_D + (plain - self.center_D) @ self.weights_DD
        return found


def herding(states_mD: Floats) -> npt.NDArray[np.int64]:
    """Return an order of rows whose every beginning has a mean near that of all, one after the other."""
    target, total = states_mD.mean(axis=0), np.zeros(states_mD.shape[1])
    left, order = np.arange(len(states_mD)), list[int]()
    while len(left):
        means = (total + states_mD[left]) / (len(order) + 1)
        best = int(np.argmin(((means - target) ** 2).sum(axis=1)))
        order.append(int(left[best]))
        total += states_mD[order[-1]]
        left = np.delete(left, best)
    return np.array(order, np.int64)
