"""Answer the reconciliation protocol: a column of names becomes entities, and entities get columns.

https://reconciliation-api.github.io/specs/0.2/ is what OpenRefine and others ask by. An entity's id is its
name, which means the same in every bundle; properties are attributes; types are the values of the first of
:data:`TYPE_ATTRIBUTES` that the bundle has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import islice
from typing import Any, NamedTuple

from rapidfuzz.distance import OSA

from engine.attributes import TYPE
from engine.errors import UnknownAttributeError
from engine.text.spelling import look_key
from engine.vocabulary import MAX_NAME_LENGTH, Found
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.errors import SHOWN, Problem, ProblemError, invalid
from serve.http.reconciliation_shapes import ExtendQuery, ReconcileQuery

Json = dict[str, Any]

TYPE_ATTRIBUTES = (TYPE, "class")
"""Attributes whose values say what an entity is, the first that a bundle has."""

LOOKED_AT = 1000
"""Entities with a similar name that are looked at for those of the wanted types."""

SUGGESTED = 20
"""Suggestions of one page."""

DESCRIBED = 300
"""Characters of a description that are shown."""

NAME_WEIGHT = 2
"""What the name counts in a score, in properties."""

DESCRIPTION, ALIASES = "description", "aliases"
"""Columns that every entity has, unless the bundle has an attribute of that name."""


class _Scored(NamedTuple):
    score: float
    candidate: Json


class Reconciliation:
    """The entities of one bundle, as the protocol asks for them. Safe for several threads."""

    def __init__(self, snapshot: BundleSnapshot) -> None:
        self._vocabulary, self._catalogue = snapshot.vocabulary, snapshot.catalogue
        listed = {one["name"]: one["values"] for one in snapshot.attributes["attributes"]}
        self._attributes = listed
        self._type_attribute = next((name for name in TYPE_ATTRIBUTES if name in listed), "")

    def candidates(self, query: ReconcileQuery) -> list[Json]:
        """Return the entities that a name may mean, best first.

        A score is 100 times the mean of the name's similarity (1 less the share of letters to change), which
        counts as :data:`NAME_WEIGHT`, and of the properties given, each 1 where the entity has the value.
        An entity is a sure match where the text, given as a seed, would mean it, and it has all that was
        given besides. Milliseconds for a search of 1,000,000 names.
        """
        certain = self._vocabulary.find(query.query) if query.query else None
        looked_at = islice(self._found(query), max(LOOKED_AT if query.types else 0, query.limit))
        of_types = (found for found in looked_at if self._is_of(found.entity, query))
        scored = [self._scored(found, query, certain) for found in islice(of_types, query.limit)]
        return [one.candidate for one in sorted(scored, key=lambda one: -one.score)]

    def _found(self, query: ReconcileQuery) -> Iterator[Found]:
        """Yield what is looked at: entities that the text finds, or that have the properties."""
        if query.query:
            # No name is longer: a cell of a table may well be.
            text = query.query.strip() if len(query.query) <= MAX_NAME_LENGTH else ""
            yield from self._vocabulary.search(text) if text else ()
            return
        filters = tuple((one.pid, one.texts) for one in query.properties)
        try:
            ids = self._catalogue.matching(filters, lambda: False)
        except UnknownAttributeError:  # no entity has it
            return
        for entity in ids.tolist():
            yield Found(entity, self._vocabulary.names[entity])

    def _is_of(self, entity: int, query: ReconcileQuery) -> bool:
        if not query.types or query.type_strict == "should":
            return True
        held = self._types_of(entity)
        return (all if query.type_strict == "all" else any)(one in held for one in query.types)

    def _scored(self, found: Found, query: ReconcileQuery, certain: int | None) -> _Scored:
        entity = found.entity
        attributes = self._catalogue.attributes_of(entity)
        features: list[Json] = []
        total = parts = 0.0
        if query.query:
            alike = OSA.normalized_similarity(look_key(query.query), look_key(found.spelling))
            alike = 1.0 if entity == certain else alike
            features.append({"id": "name_similarity", "value": round(100 * alike, 2)})
            total, parts = NAME_WEIGHT * alike, NAME_WEIGHT
        for one in query.properties:
            wanted = {text.casefold() for text in one.texts}
            holds = any(value.casefold() in wanted for value in attributes.get(one.pid, ()))
            features.append({"id": one.pid, "value": holds})
            total, parts = total + holds, parts + 1
        if query.types and query.type_strict == "should":
            of_type = bool(set(query.types) & set(self._types_of(entity)))
            features.append({"id": "type", "value": of_type})
            total, parts = total + of_type, parts + 1
        score = round(100 * total / parts, 2)
        candidate = {
            **self._named(entity),
            "score": score,
            "match": entity == certain and total == parts,
            "features": features,
            "type": _named_alike(self._types_of(entity)),
        }
        return _Scored(score, candidate)

    def extended(self, asked: ExtendQuery) -> Json:
        """Return the values of attributes of entities; an unknown entity's are empty.

        Raises:
            ProblemError: an attribute that the bundle does not have.
        """
        names = [one.id for one in asked.properties]
        for place, name in enumerate(names):
            if name not in self._columns:
                there = ", ".join(self._columns)[: 4 * SHOWN]
                field = f"extend.properties.{place}.id"
                raise invalid(f"the bundle has no attribute {name[:SHOWN]!r}; there are {there}", field)
        rows = {}
        for given in asked.ids:
            entity = self._vocabulary.find(given)
            held = {} if entity is None else self._values_of(entity)
            rows[given] = {
                one.id: [{"str": value} for value in held.get(one.id, ())[: one.settings.limit]]
                for one in asked.properties
            }
        return {"meta": _named_alike(names), "rows": rows}

    def suggested_entities(self, prefix: str, cursor: int) -> list[Json]:
        """Return entities with a name like a text, best first, after the first ``cursor``."""
        found = islice(self._vocabulary.search(prefix), cursor, cursor + SUGGESTED) if prefix else ()
        return [self._named(one.entity) for one in found]

    def suggested_properties(self, prefix: str, cursor: int) -> list[Json]:
        """Return attributes of which a part is the text, in the order of the listing."""
        return _named_alike(_containing(prefix, self._columns, cursor))

    def suggested_types(self, prefix: str, cursor: int) -> list[Json]:
        """Return types of which a part is the text, those of most entities first, with their number."""
        counts = {one["value"]: one["entities"] for one in self._attributes.get(self._type_attribute, ())}
        return [
            {"id": name, "name": name, "description": f"{counts[name]} entities"}
            for name in _containing(prefix, counts, cursor)
        ]

    def proposed(self, limit: int) -> list[Json]:
        """Return attributes that may be added as columns."""
        return _named_alike(list(self._columns)[:limit])

    def entity(self, name: str) -> int:
        """Return the entity of an id of this protocol.

        Raises:
            ProblemError: there is none (404).
        """
        found = self._vocabulary.find(name)
        if found is None:
            raise ProblemError(Problem("unknown_entity", f"unknown entity {name[:SHOWN]!r}", 404, "id"))
        return found

    def html(self, entity: int) -> str:
        """Return what is known of an entity as a part of a page."""
        rows = "".join(
            f"<tr><th scope='row'>{escape(name)}</th><td>{escape('; '.join(values))}</td></tr>"
            for name, values in self._values_of(entity).items()
            if values
        )
        return f"<h1>{escape(self._vocabulary.names[entity])}</h1><table>{rows}</table>"

    @property
    def _columns(self) -> dict[str, None]:
        return dict.fromkeys((*self._attributes, ALIASES, DESCRIPTION))

    def _values_of(self, entity: int) -> dict[str, list[str]]:
        described = self._catalogue.description(entity)
        own = {DESCRIPTION: [described] if described else [], ALIASES: self._vocabulary.aliases[entity]}
        return own | self._catalogue.attributes_of(entity)

    def _types_of(self, entity: int) -> list[str]:
        return self._catalogue.attributes_of(entity).get(self._type_attribute, [])

    def _named(self, entity: int) -> Json:
        name, described = self._vocabulary.names[entity], self._catalogue.description(entity)
        about = described if len(described) <= DESCRIBED else f"{described[: DESCRIBED - 1]}…"
        return {"id": name, "name": name, "description": about}


def _named_alike(names: Sequence[str]) -> list[Json]:
    return [{"id": name, "name": name} for name in names]


def _containing(part: str, names: Iterable[str], passed: int) -> list[str]:
    folded = part.casefold()
    return list(islice((name for name in names if folded in name.casefold()), passed, passed + SUGGESTED))


def manifest(base: str, needs_token: bool) -> Json:
    """Return what the service can do and where.

    Args:
        base: address under which the application is served, without a slash at its end.
        needs_token: whether it answers with a token only.
    """
    here = f"{base}/v1/reconcile"
    page = f"{here}/preview?id={{{{id}}}}"
    suggest: Json = {
        kind: {"service_url": base, "service_path": f"/v1/reconcile/suggest/{kind}"}
        for kind in ("entity", "property", "type")
    }
    suggest["entity"]["flyout_service_path"] = "/v1/reconcile/flyout?id=${id}"
    limit = {
        "name": "limit",
        "label": "most values",
        "type": "number",
        "help_text": "how many values of an entity are brought; empty: all",
    }
    token = {"type": "apiKey", "name": "Authorization", "in": "header"}
    return {
        "versions": ["0.2"],
        "name": "seedset",
        "identifierSpace": f"{base}/v1/entities/",
        "schemaSpace": f"{base}/v1/attributes",
        "view": {"url": page},
        "preview": {"url": page, "width": 400, "height": 240},
        "suggest": suggest,
        "extend": {
            "propose_properties": {"service_url": base, "service_path": "/v1/reconcile/properties"},
            "property_settings": [limit],
        },
        **({"authentication": token} if needs_token else {}),
    }
