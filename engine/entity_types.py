"""Keep the types of every entity, with how sure a typing model is of them, and compare entities by them.

A type's confidence for an entity is the mean of its probabilities over the entity's mentions. Of each
mention those of :data:`MIN_PROBABILITY` and more are kept: with UFET's 10,331 types a dozen of a mention, a
few dozen of an entity (50,000 entities: about 20 MB).

Shape letters: N entities, T types, M pairs of an entity and a type, n entities of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from engine.errors import BundleError
from engine.query import Ids, Scores

TYPES = "types.parquet"
"""A bundle's file: rows of an entity together, its surest type first."""

VIEW = "types"
"""The view of mean states at the question for the type."""

MIN_PROBABILITY = 0.05
"""Probability from which a mention's type is kept."""

MAX_TYPES = 64
"""Types that are kept of an entity, and of a mention, at most."""

THRESHOLD = 0.5
"""Confidence from which a type is said to hold."""

SCHEMA = pa.schema(
    [
        pa.field("entity_id", pa.int32(), nullable=False),
        pa.field("type", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
    ]
)


@dataclass(frozen=True)
class EntityTypes:
    """The types of all entities, sorted by entity, each one's surest type first.

    Attributes:
        names: of the types, [T].
        starts_N1: int64 [N + 1], where each entity's types begin.
        types_M: int32, places in ``names``.
        confidence_M: float32.
    """

    names: Sequence[str]
    starts_N1: npt.NDArray[np.int64]
    types_M: npt.NDArray[np.int32]
    confidence_M: Scores

    @classmethod
    def collect(
        cls,
        names: Sequence[str],
        entities: npt.NDArray[np.integer],
        types: npt.NDArray[np.integer],
        probabilities: npt.NDArray[np.floating],
        mentions_N: npt.NDArray[np.integer],
    ) -> EntityTypes:
        """Return the mean over each entity's mentions; what a mention does not list counts as 0 there.

        Args:
            names: of the types.
            entities: of each type of each mention.
            types: likewise, places in ``names``.
            probabilities: likewise.
            mentions_N: of each entity, also those without any type.
        """
        n, width = len(mentions_N), max(len(names), 1)
        pairs, place = np.unique(entities.astype(np.int64) * width + types, return_inverse=True)
        total = np.bincount(place, probabilities.astype(np.float64), len(pairs))
        entity_M, type_M = pairs // width, pairs % width
        mean_M = (total / np.maximum(mentions_N, 1)[entity_M]).astype(np.float32)
        order = np.lexsort((type_M, -mean_M, entity_M))
        entity_M, type_M, mean_M = entity_M[order], type_M[order], mean_M[order]
        rank_M = np.arange(len(entity_M)) - np.searchsorted(entity_M, entity_M)
        kept = rank_M < MAX_TYPES
        starts = np.searchsorted(entity_M[kept], np.arange(n + 1)).astype(np.int64)
        return cls(list(names), starts, type_M[kept].astype(np.int32), mean_M[kept])

    @classmethod
    def read(cls, file: Path, n_entities: int) -> EntityTypes:
        """Read what :meth:`write` wrote.

        Raises:
            BundleError: it is not of that form, or of other entities.
        """
        table = pq.read_table(file)
        if not table.schema.equals(SCHEMA):
            raise BundleError(
                f"{file.name}: its columns are not those of entities' types; build the index again"
            )
        table = table.unify_dictionaries().combine_chunks()
        entity_M = table["entity_id"].to_numpy()
        if len(entity_M) and not (
            entity_M[0] >= 0 and entity_M[-1] < n_entities and np.all(np.diff(entity_M) >= 0)
        ):
            raise BundleError(
                f"{file.name}: not the types of {n_entities} entities in order; build the index again"
            )
        column = (
            table["type"].chunk(0)
            if len(table)
            else pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), [])
        )
        return cls(
            column.dictionary.to_pylist(),
            np.searchsorted(entity_M, np.arange(n_entities + 1)).astype(np.int64),
            column.indices.to_numpy(),
            table["confidence"].to_numpy(),
        )

    def write(self, file: Path) -> None:
        """Write the file of a bundle."""
        used, places = np.unique(self.types_M, return_inverse=True)
        names = pa.array([self.names[place] for place in used.tolist()], pa.string())
        column = pa.DictionaryArray.from_arrays(pa.array(places.astype(np.int32)), names)
        entity_M = np.repeat(np.arange(len(self), dtype=np.int32), np.diff(self.starts_N1))
        pq.write_table(pa.table([entity_M, column, self.confidence_M], schema=SCHEMA), file)

    def __len__(self) -> int:
        return len(self.starts_N1) - 1

    def of(self, entity: int, least: float = THRESHOLD) -> list[tuple[str, float]]:
        """Return an entity's types of at least that confidence, the surest first."""
        some = slice(self.starts_N1[entity], self.starts_N1[entity + 1])
        pairs = zip(self.types_M[some].tolist(), self.confidence_M[some].tolist(), strict=True)
        return [(self.names[place], sure) for place, sure in pairs if sure >= least]

    def rows(self, entities: Sequence[int] | Ids) -> Scores:
        """Return the confidence of every type for some entities, [n, T]; zeros for what is not kept."""
        found = np.zeros((len(entities), len(self.names)), np.float32)
        for row, entity in zip(found, entities, strict=True):
            some = slice(self.starts_N1[entity], self.starts_N1[entity + 1])
            row[self.types_M[some]] = self.confidence_M[some]
        return found

    def cosines(self, entities: Ids, direction_T: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the cosines of some entities' types to a unit direction, [n]; 0 for an entity without any.

        An entity is the square roots of its types' confidences, as a unit vector: one sure type does not
        outweigh all others.
        """
        counts = np.diff(self.starts_N1)[entities]
        begin = self.starts_N1[entities] - np.concatenate([[0], np.cumsum(counts)[:-1]])
        places = np.repeat(begin, counts) + np.arange(counts.sum())
        row = np.repeat(np.arange(len(entities)), counts)
        confidence = self.confidence_M[places].astype(np.float64)
        products = np.bincount(row, np.sqrt(confidence) * direction_T[self.types_M[places]], len(entities))
        length = np.sqrt(np.bincount(row, confidence, len(entities)))
        return products / np.maximum(length, 1e-12)

    @cached_property
    def frequency_T(self) -> npt.NDArray[np.int64]:
        """How many entities each type holds for, [T]."""
        return np.bincount(self.types_M[self.confidence_M >= THRESHOLD], minlength=len(self.names))
