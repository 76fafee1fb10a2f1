"""Write expansions as plain rows that cross tables, and read them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from engine.filters import dumped, loaded
from engine.query import Attributes, Expansion, NewEntity, Query, Ranking, Selection


def to_rows(expansions: Sequence[Expansion]) -> list[dict[str, Any]]:
    """Return plain rows (numbers, strings, arrays) that cross a table; see :func:`from_rows`.

    Raises:
        ValueError: a query with a deadline, which is of this process' clock, or with entities that an overlay
            has deleted, which are of this moment.
    """
    if bad := next((e.query for e in expansions if e.query.deadline), None):
        raise ValueError(f"query {bad.id!r}: tables carry no deadlines")
    if bad := next((e.query for e in expansions if e.query.deleted), None):
        raise ValueError(f"query {bad.id!r}: tables carry nothing of an overlay")
    return [
        {
            "query_id": e.query.id,
            "positive": list(e.query.positive),
            "negative": list(e.query.negative),
            "top_k": e.query.top_k,
            "filters": dumped(e.query.filters),
            "new": [_row_of(one) for one in e.query.new],
            "options": json.dumps(dict(e.query.options)) if e.query.options else "",
            "exclude": list(e.query.exclude),
            "selection": _changed(e.query.selection),
            "weights": json.dumps(e.query.weights) if e.query.weights else "",
            "context": json.dumps(e.query.context) if e.query.context else "",
            "entity_ids": e.ranking.ids,
            "scores": e.ranking.scores,
            "evidence_names": list(e.ranking.evidence),
            "evidence": [np.asarray(c, np.float32) for c in e.ranking.evidence.values()],
            "seconds_names": list(e.seconds),
            "seconds": list(e.seconds.values()),
            "degraded": list(e.degraded),
            "reasoning": list(e.reasoning.items()),
            "class_name": e.query.class_name,
            "positive_attributes": list(e.query.positive_attributes),
            "negative_attributes": list(e.query.negative_attributes),
            "counts": list(e.counts.items()),
        }
        for e in expansions
    ]


def from_rows(rows: Sequence[Mapping[str, Any]]) -> list[Expansion]:
    """Return the expansions that :func:`to_rows` wrote."""
    return [
        Expansion(
            Query(
                str(row["query_id"]),
                tuple(int(i) for i in row["positive"]),
                tuple(int(i) for i in row["negative"]),
                int(row["top_k"]),
                loaded(row["filters"]),
                tuple(map(_new_entity, row["new"])),
                class_name=str(row["class_name"]),
                positive_attributes=_attributes(row["positive_attributes"]),
                negative_attributes=_attributes(row["negative_attributes"]),
                options=tuple(json.loads(row["options"] or "{}").items()),
                # What was written by an earlier version has no such columns.
                exclude=tuple(int(i) for i in row.get("exclude") or ()),
                selection=_selection(json.loads(row.get("selection") or "{}")),
                weights=tuple((seed, weight) for seed, weight in json.loads(row.get("weights") or "[]")),
                context=tuple((this, that) for this, that in json.loads(row.get("context") or "[]")),
            ),
            Ranking(
                np.asarray(row["entity_ids"], np.int32),
                np.asarray(row["scores"], np.float32),
                {
                    str(name): np.asarray(column, np.float32)
                    for name, column in zip(row["evidence_names"], row["evidence"], strict=True)
                },
            ),
            {str(n): float(s) for n, s in zip(row["seconds_names"], row["seconds"], strict=True)},
            tuple(str(d) for d in row["degraded"]),
            {str(name): str(text) for name, text in row["reasoning"]},
            counts={str(name): int(n) for name, n in row["counts"]},
        )
        for row in rows
    ]


def _changed(selection: Selection) -> str:
    """Return JSON of what a selection says; "" where it says nothing."""
    return "" if selection == Selection() else json.dumps(asdict(selection))


def _selection(said: dict[str, Any]) -> Selection:
    facets = said.pop("facets", ())
    return Selection(**said, facets=facets if isinstance(facets, bool) else tuple(facets))


def _row_of(new: NewEntity) -> dict[str, Any]:
    views, vectors = list(new.vectors), [np.asarray(one, np.float32) for one in new.vectors.values()]
    return {"name": new.name, "sentences": list(new.sentences), "views": views, "vectors": vectors}


def _new_entity(row: Mapping[str, Any]) -> NewEntity:
    vectors = (np.asarray(one, np.float32) for one in row["vectors"])
    return NewEntity(
        str(row["name"]), tuple(map(str, row["sentences"])), dict(zip(row["views"], vectors, strict=True))
    )


def _attributes(pairs: Sequence[Any]) -> Attributes:
    return tuple((str(name), tuple(map(str, values))) for name, values in pairs)
