"""Compare entities by their types: re-rank by what seeds are, and say what tells both kinds apart in words.

Both are ours: FiveFine types mentions, and ends there. An entity is its types' confidences, each by its
square root, as a unit vector; a kind of seeds is the unit mean of its seeds' vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.catalogue.opening import open_types
from engine.entity_types import THRESHOLD, TYPES, EntityTypes
from engine.query import Expansion, Query, Weights
from engine.retrieval.index import Vectors, mean_of
from engine.stages.base import QueryFeature, Stage, Worker, by_settings
from engine.stages.retrieve import unused
from engine.storage.bundle import Bundle
from engine.text.plurals import is_plural, plural

MARGIN = 0.25
"""Difference of the mean confidences of two kinds of seeds from which a type tells them apart."""

MAX_NAMED = 3
"""Types that are named of each kind at most."""


class TypeRerank(Stage):
    """Raise entities that are what the positive seeds are, less where they are more like the negative ones.

    With t+ and t- the cosines of an entity's types to those of the seeds of both kinds, w the weight and T
    the temperature,

        score := score + w * (t+ - T * log(1 + exp((t- - t+) / T)))

    without negative seeds score + w * t+. The evidence ``types`` is what w multiplies. An entity without
    types has cosines of zero. What the seeds are goes, in words, into the answer's reasoning.
    """

    weight: float = Field(default=0.2, ge=0)
    temperature: float = Field(default=0.1, gt=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {"weight": (0, 10), "temperature": (0.001, 10)}

    supports: ClassVar[frozenset[QueryFeature]] = frozenset({QueryFeature.WEIGHTS})

    def needs(self) -> tuple[str, ...]:
        """Name the types of entities."""
        return (TYPES,)

    def open(self, bundle: Bundle) -> Worker:
        """Read the types."""
        types = open_types(bundle)

        def run(own: TypeRerank, expansions: list[Expansion]) -> list[Expansion]:
            return [own._rerank(e, types) for e in expansions]

        return lambda expansions: by_settings(self, expansions, run)

    def _rerank(self, expansion: Expansion, types: EntityTypes) -> Expansion:
        query, ranking = expansion.query, expansion.ranking
        kinds = {"positive": query.positive, "negative": query.negative}
        seeds = {kind: _vectors(types, ids) for kind, ids in kinds.items()}
        plus, minus = (
            types.cosines(ranking.ids, _direction(own, query.weights_of(kinds[kind])))
            for kind, own in seeds.items()
        )
        agreement = plus
        if query.negative:
            agreement = plus - self.temperature * np.logaddexp(0, (minus - plus) / self.temperature)
        scores = (ranking.scores + self.weight * agreement).astype(np.float32)
        order = np.lexsort((ranking.ids, -scores))
        marked = replace(ranking.with_evidence(types=agreement.astype(np.float32)), scores=scores)
        notes = [
            note
            for kind, own in seeds.items()
            for note in unused(self.name, query, kind, kinds[kind], own, "type")
        ]
        return replace(
            expansion,
            ranking=marked.take(order),
            degraded=(*expansion.degraded, *notes),
            reasoning={**SeedTypes.of(query, types).in_words(), **expansion.reasoning},
        )


class SeedTypes(NamedTuple):
    """The types of a query's seeds, :data:`MAX_NAMED` of each kind at most.

    ``shared`` hold for seeds of both kinds on average and do not tell them apart, that of the fewest entities
    first. ``positive`` and ``negative`` hold for the seeds of the kind, surer by :data:`MARGIN` than for
    those of the other, the largest difference first; without negative seeds nothing tells apart.
    """

    shared: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: Query, types: EntityTypes) -> SeedTypes:
        """Return the types of a query's seeds; of those that the vocabulary does not hold none is known."""
        plus_T, minus_T = (_mean(types, seeds) for seeds in (query.positive, query.negative))
        alone = not query.negative
        alike_T = alone | ((minus_T >= THRESHOLD) & (np.abs(plus_T - minus_T) < MARGIN))
        shared = np.flatnonzero((plus_T >= THRESHOLD) & alike_T)
        shared = shared[np.argsort(types.frequency_T[shared], kind="stable")]
        found = [shared]
        for holds_T, other_T in ((plus_T, minus_T), (minus_T, plus_T)):
            apart = np.flatnonzero(~alone & (holds_T - other_T >= MARGIN) & (holds_T >= THRESHOLD))
            found.append(apart[np.argsort((other_T - holds_T)[apart], kind="stable")])
        return cls(*(tuple(types.names[place] for place in best[:MAX_NAMED].tolist()) for best in found))

    def in_words(self) -> dict[str, str]:
        """Return them as parts of an answer's reasoning; the class is named by the first that is shared."""
        parts = {"class_name": self.shared[:1], "positive": self.positive, "negative": self.negative}
        return {part: ", ".join(map(spoken, names)) for part, names in parts.items() if names}

    def held_by(self, entity: int, types: EntityTypes) -> SeedTypes:
        """Return those that hold for an entity; for one that an overlay has added, none is known."""
        own = {name for name, _ in types.of(entity)} if entity < len(types) else set()
        return SeedTypes(*(tuple(name for name in names if name in own) for names in self))


def class_in_plural(query: Query, types: EntityTypes) -> str:
    """Return what the positive seeds are by the rarest type that they share, in the plural; "" for none."""
    shared = SeedTypes.of(replace(query, negative=()), types).shared
    if not shared:
        return ""
    *first, last = spoken(shared[0]).split()
    return " ".join([*first, last if is_plural(last) else plural(last)])


def spoken(name: str) -> str:
    """Return a type as it is said."""
    return name.replace("_", " ")


def _known(seeds: Sequence[int]) -> list[int]:
    """Return the seeds that the vocabulary holds: of others no type is known."""
    return [seed for seed in seeds if seed >= 0]


def _mean(types: EntityTypes, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the mean confidence of every type over the seeds that have any, [T]; zeros for none."""
    return mean_of(types.rows(_known(seeds)))


def _direction(vectors_MT: Vectors, weights_M: Weights | None) -> npt.NDArray[np.float64]:
    """Return the unit mean of unit vectors, by weights if any, [T]; zeros for none."""
    mean_T = mean_of(vectors_MT, weights_M)
    return mean_T / max(float(np.linalg.norm(mean_T)), 1e-12)


def _vectors(types: EntityTypes, seeds: Sequence[int]) -> Vectors:
    """Return the unit vectors of some seeds' types, [M, T]; zeros for a seed without any."""
    found = np.zeros((len(seeds), len(types.names)), np.float32)
    for row, seed in zip(found, seeds, strict=True):
        if seed >= 0:
            row[:] = np.sqrt(types.rows([seed])[0])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
