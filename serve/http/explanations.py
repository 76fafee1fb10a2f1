"""Explain an entity's place in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.catalogue import MentionSentence
from engine.entity_types import EntityTypes
from engine.query import Expansion, Query
from engine.stages.types import SeedTypes, spoken
from engine.vocabulary import Vocabulary
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.images import ImageAddresses
from serve.http.requests import numbers

Json = dict[str, Any]

SIDES = ("positive", "negative")
SENTENCES = 2
"""Sentences of an explanation."""


def explanations(
    expansion: Expansion, snapshot: BundleSnapshot, images: ImageAddresses
) -> tuple[Expansion, dict[int, Json]]:
    """Turn the columns of the stage that explains into explanations by entity. Reads from the disk.

    Returns:
        The expansion without these columns, and the explanations.
    """
    ranking = expansion.ranking
    ids = ranking.ids.tolist()
    columns = dict(ranking.evidence)
    nearest = {
        side: _nearest(columns, side, expansion.query, snapshot.vocabulary, len(ids)) for side in SIDES
    }
    sentences = snapshot.catalogue.sentences(ids, SENTENCES)
    types = _types(ids, expansion.query, snapshot.types)
    explained = {
        entity: {
            **{f"nearest_{side}": nearest[side][place] for side in SIDES},
            "sentences": sentences_of(sentences.get(entity, ())),
            "images": images.of(entity, sentences.get(entity, ())),
            "types": types[place],
        }
        for place, entity in enumerate(ids)
    }
    return replace(expansion, ranking=replace(ranking, evidence=columns)), explained


def _nearest(
    columns: dict[str, Any], side: str, query: Query, vocabulary: Vocabulary, n: int
) -> list[Json | None]:
    """Take a side's columns out, and return each entity's nearest seed of that side."""
    places = columns.pop(f"nearest_{side}", np.full(n, -1, np.float32))
    similarities = columns.pop(f"nearest_{side}_similarity", np.zeros(n, np.float32))
    seeds = query.positive if side == "positive" else query.negative
    names = query.seed_names(seeds, vocabulary.names)
    return [
        {"id": seeds[place] if seeds[place] >= 0 else None, "name": names[place], "similarity": similarity}
        if place >= 0
        else None
        for place, similarity in zip(places.astype(int).tolist(), numbers(similarities.tolist()), strict=True)
    ]


def _types(ids: Sequence[int], query: Query, types: EntityTypes | None) -> list[Json | None]:
    """Return which of the seeds' types each entity has; null in a bundle without types."""
    if types is None:
        return [None] * len(ids)
    of_seeds = SeedTypes.of(query, types)
    held = (of_seeds.held_by(entity, types)._asdict() for entity in ids)
    return [{kind: list(map(spoken, names)) for kind, names in one.items()} for one in held]


def sentences_of(sentences: Sequence[MentionSentence]) -> list[Json]:
    """Return the JSON objects of sentences; a context that is an image alone has none."""
    return [{"text": one.text, "start": one.start, "end": one.end} for one in sentences if one.text]
