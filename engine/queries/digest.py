"""Digest queries: all that a method is asked, so that two tables of them can be compared."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from engine.filters import dumped
from engine.query import NewEntity, Query, Selection


class QueriesDigest:
    """The hex digest of queries in order, all that a method is asked; not their truth."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, q: Query, how: Mapping[str, Any]) -> None:
        """Take one more query, and what its record says of how to answer."""
        given: list[Any] = [q.class_name, q.positive_attributes, q.negative_attributes]
        given += [dict(q.options)] if q.options else []
        given += [{"filter": dumped(q.filters)}] if q.filters else []
        given += [{"new": [_told(one) for one in q.new]}] if q.new else []
        given += [{"exclude": q.exclude}] if q.exclude else []
        given += [asdict(q.selection)] if q.selection != Selection() else []
        given += [{"weights": q.weights}] if q.weights else []
        given += [{"context": q.context}] if q.context else []
        given += [how] if how else []
        self._digest.update(json.dumps([q.id, q.positive, q.negative, q.top_k, *given]).encode() + b"\n")

    def __str__(self) -> str:
        return self._digest.hexdigest()[:16]


def _told(new: NewEntity) -> list[Any]:
    given = {view: vector.tolist() for view, vector in new.vectors.items()}
    return [new.name, new.sentences, *([given] if given else [])]
