"""Read what the stage that explains has found, and add the sentences and the types of each entity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from engine.catalogue.entities import Catalogue
from engine.catalogue.opening import open_catalogue, open_types
from engine.catalogue.sentences import MentionSentence
from engine.entity_types import TYPES, EntityTypes
from engine.query import Expansion, Query
from engine.retrieval.index import views_of
from engine.stages.explain import Explain
from engine.stages.select import Select
from engine.stages.types import SeedTypes, spoken
from engine.storage.bundle import Bundle
from engine.vocabulary import Vocabulary

VIEWS = ("joint", "mask", "description", "lexical")
"""Views by which answers are explained: the first that a bundle has."""

SIDES = ("positive", "negative")
SENTENCES = 2
"""Sentences of an explanation."""


class Nearest(NamedTuple):
    """The seed that an entity is most similar to; ``id`` None: one that the vocabulary does not hold."""

    id: int | None
    name: str
    similarity: float


class Explanation(NamedTuple):
    """Why an entity is in an answer; ``types`` None: the bundle holds none."""

    nearest_positive: Nearest | None
    nearest_negative: Nearest | None
    sentences: Sequence[MentionSentence]
    types: dict[str, list[str]] | None


def explain_stage(bundle: Bundle) -> Explain | None:
    """Return the stage that explains a bundle's answers; None if it has no vectors for that."""
    view = next((v for v in VIEWS if v in views_of(bundle.manifest)), None)
    return None if view is None else Explain(view=view)


def select_stage(bundle: Bundle) -> Select:
    """Return the stage that chooses lists as a whole; without vectors it knows groups alone."""
    return Select(view=next((v for v in VIEWS if v in views_of(bundle.manifest)), None))


@dataclass(frozen=True)
class Explainer:
    """What explanations are made of: the vocabulary, the catalogue, and the types of entities, if any."""

    vocabulary: Vocabulary
    catalogue: Catalogue
    types: EntityTypes | None

    @classmethod
    def open(cls, bundle: Bundle) -> Explainer:
        """Open what a bundle holds."""
        types = open_types(bundle) if TYPES in bundle.manifest.files else None
        return cls(bundle.vocabulary, open_catalogue(bundle), types)

    def take(self, expansion: Expansion) -> tuple[Expansion, dict[int, Explanation]]:
        """Turn the columns of :class:`engine.stages.explain.Explain` into explanations. Reads from the disk.

        Returns:
            The expansion without these columns, and the explanations by entity.
        """
        ranking, query = expansion.ranking, expansion.query
        ids = ranking.ids.tolist()
        columns = dict(ranking.evidence)
        positive, negative = (self._nearest(columns, side, query, len(ids)) for side in SIDES)
        sentences = self.catalogue.sentences(ids, SENTENCES)
        types = self._types(ids, query)
        explained = {
            entity: Explanation(positive[place], negative[place], sentences.get(entity, ()), types[place])
            for place, entity in enumerate(ids)
        }
        return replace(expansion, ranking=replace(ranking, evidence=columns)), explained

    def _nearest(self, columns: dict[str, Any], side: str, query: Query, n: int) -> list[Nearest | None]:
        """Take a side's columns out, and return each entity's nearest seed of that side."""
        places = columns.pop(f"nearest_{side}", np.full(n, -1, np.float32))
        similarities = columns.pop(f"nearest_{side}_similarity", np.zeros(n, np.float32))
        seeds = query.positive if side == "positive" else query.negative
        names = query.seed_names(seeds, self.vocabulary.names)
        return [
            Nearest(seeds[place] if seeds[place] >= 0 else None, names[place], similarity)
            if place >= 0
            else None
            for place, similarity in zip(places.astype(int).tolist(), similarities.tolist(), strict=True)
        ]

    def _types(self, ids: Sequence[int], query: Query) -> list[dict[str, list[str]] | None]:
        """Return which of the seeds' types each entity has."""
        if self.types is None:
            return [None] * len(ids)
        of_seeds = SeedTypes.of(query, self.types)
        held = (of_seeds.held_by(entity, self.types)._asdict() for entity in ids)
        return [{kind: list(map(spoken, names)) for kind, names in one.items()} for one in held]
