"""The HTTP bodies: what is taken, within which limits, and what is answered."""

from __future__ import annotations

import json
import math
import uuid
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from engine.query import MAX_SEEDS, Expansion
from engine.vocabulary import MAX_NAME_LENGTH, Vocabulary

Name = Annotated[StrictStr, Field(min_length=1, max_length=MAX_NAME_LENGTH)]
Seed = Name | Annotated[StrictInt, Field(ge=0, lt=1 << 31)]


class ExpandRequest(BaseModel):
    """One query. Seeds are names (strings) or entity ids (integers)."""

    model_config = ConfigDict(extra="forbid")

    positive: list[Seed] = Field(max_length=MAX_SEEDS)
    negative: list[Seed] = Field(default=[], max_length=MAX_SEEDS)
    method: str = Field(default="default", max_length=100)
    top_k: StrictInt = 50
    id: str = Field(default_factory=lambda: uuid.uuid4().hex, min_length=1, max_length=128)


class BatchRequest(BaseModel):
    """Several queries; each is checked on its own, so that a bad one does not refuse the others."""

    model_config = ConfigDict(extra="forbid")

    queries: list[Any]


def answer_of(expansion: Expansion, vocabulary: Vocabulary, method: str, bundle: str) -> dict[str, Any]:
    """Return the JSON object of an answered query; numbers that are none (NaN) become null."""
    ranking = expansion.ranking
    columns = {name: column.tolist() for name, column in ranking.evidence.items()}
    results = [
        {
            "rank": place + 1,
            "id": entity,
            "name": vocabulary.names[entity],
            "score": number(score),
            "evidence": {name: number(column[place]) for name, column in columns.items()},
        }
        for place, (entity, score) in enumerate(
            zip(ranking.ids.tolist(), ranking.scores.tolist(), strict=True)
        )
    ]
    return {
        "id": expansion.query.id,
        "method": method,
        "bundle": bundle,
        "results": results,
        "seconds": {name: round(s, 6) for name, s in expansion.seconds.items()},
        "degraded": list(expansion.degraded),
    }


def entity_of(vocabulary: Vocabulary, entity: int) -> dict[str, Any]:
    """Return the JSON object of an entity."""
    return {
        "id": entity,
        "name": vocabulary.names[entity],
        "aliases": vocabulary.aliases[entity],
    }


def number(value: float) -> float | None:
    """Return a JSON number rounded to float32's digits, or None for NaN and infinities."""
    return float(f"{value:.9g}") if math.isfinite(value) else None


def encode(content: Any) -> bytes:
    """Return JSON in UTF-8; half a surrogate pair, which JSON may smuggle in, becomes ``?``."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")
