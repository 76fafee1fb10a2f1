"""Compare entities by their types: re-rank by what seeds are, and say what tells both kinds apart in words.

Both are ours: FiveFine types mentions, and ends there. An entity is its types' confidences, each by its
square root, as a unit vector; a kind of seeds is the unit mean of its seeds' vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.catalogue import open_types
from engine.entity_types import THRESHOLD, TYPES, EntityTypes
from engine.query import Expansion, Query
from engine.retrieval.index import Vectors, mean_of
from engine.stages.base import Stage, Worker, by_settings
from engine.stages.retrieve import unused
from engine.storage.bundle import Bundle

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
        plus, minus = (types.cosines(ranking.ids, _direction(own)) for own in seeds.values())
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
            reasoning={**types_in_words(query, types), **expansion.reasoning},
        )


def types_in_words(query: Query, types: EntityTypes) -> dict[str, str]:
    """Return what the seeds are, as parts of an answer's reasoning, without those of which nothing is known.

    ``class_name``: of the types that hold for seeds of both kinds on average and do not tell them apart, the
    one that the fewest entities have. ``positive`` and ``negative``: the types that hold for the seeds of the
    kind, surer by :data:`MARGIN` than for those of the other, the largest difference first.
    """
    plus_T, minus_T = (_mean(types, seeds) for seeds in (query.positive, query.negative))
    alone = not query.negative
    found = {}
    alike_T = alone | ((minus_T >= THRESHOLD) & (np.abs(plus_T - minus_T) < MARGIN))
    shared = np.flatnonzero((plus_T >= THRESHOLD) & alike_T)
    if len(shared):
        found["class_name"] = types.names[shared[np.argmin(types.frequency_T[shared])]]
    for kind, difference_T in (("positive", plus_T - minus_T), ("negative", minus_T - plus_T)):
        holds = plus_T if kind == "positive" else minus_T
        apart = np.flatnonzero((difference_T >= MARGIN) & (holds >= THRESHOLD))
        best = apart[np.argsort(-difference_T[apart], kind="stable")][:MAX_NAMED]
        if len(best) and not alone:
            found[kind] = ", ".join(types.names[place] for place in best.tolist())
    return {part: words.replace("_", " ") for part, words in found.items()}


def _known(seeds: Sequence[int]) -> list[int]:
    """Return the seeds that the vocabulary holds: of others no type is known."""
    return [seed for seed in seeds if seed >= 0]


def _mean(types: EntityTypes, seeds: Sequence[int]) -> npt.NDArray[np.float64]:
    """Return the mean confidence of every type over the seeds that have any, [T]; zeros for none."""
    return mean_of(types.rows(_known(seeds)))


def _direction(vectors_MT: Vectors) -> npt.NDArray[np.float64]:
    """Return the unit mean of unit vectors, [T]; zeros for none."""
    mean_T = mean_of(vectors_MT)
    return mean_T / max(float(np.linalg.norm(mean_T)), 1e-12)


def _vectors(types: EntityTypes, seeds: Sequence[int]) -> Vectors:
    """Return the unit vectors of some seeds' types, [M, T]; zeros for a seed without any."""
    found = np.zeros((len(seeds), len(types.names)), np.float32)
    for row, seed in zip(found, seeds, strict=True):
        if seed >= 0:
            row[:] = np.sqrt(types.rows([seed])[0])
    return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
