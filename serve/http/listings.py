"""Describe what is served: the bundle, its methods, its entities. What takes no stage is answered here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from engine.retrieval.index import index_file, read_vectors, views_of
from engine.stages.options import offered
from engine.storage.workspace import Workspace
from engine.vocabulary import Found
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.errors import SHOWN, invalid
from serve.http.explanations import sentences_of
from serve.http.images import MAX_SENTENCES, ImageAddresses
from serve.http.requests import entity_of, numbers
from serve.http.resolve import LOOKUP_SUGGESTIONS, Arrival

Json = dict[str, Any]

FIELDS = ("description", "attributes")
"""What entities of a list may come with."""

LIKE = 3
"""Entities that are suggested for a name that is unknown."""

_PLACE = re.compile(r"(/|\.{1,2}/|~[^/]*/|[A-Za-z]:\\|[a-z][a-z0-9+.-]*://).*", re.DOTALL)
"""A path that no model of a hub has as its name, or an address."""


def bundle_listing(snapshot: BundleSnapshot, refused: tuple[str, str] | None) -> Json:
    """Return what is served, and what it was made from; of places on machines their last part alone."""
    manifest = snapshot.manifest
    about = manifest.model_dump(mode="json", include={"id", "created", "parent"})
    return {
        **about,
        "settings": without_places(manifest.settings),
        "files": sorted(manifest.files),
        "entities": len(snapshot.vocabulary),
        "methods": list(snapshot.methods),
        "refused": {"id": refused[0], "reason": refused[1]} if refused else None,
    }


def without_places(given: Any) -> Any:
    """Return a JSON value in which paths and addresses, such as a model's folder, are their last part."""
    if isinstance(given, dict):
        return {name: without_places(value) for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [without_places(value) for value in given]
    if isinstance(given, str) and _PLACE.fullmatch(given):
        return re.split(r"[/\\]", given.rstrip("/\\"))[-1]
    return given


def method_listing(snapshot: BundleSnapshot) -> Json:
    """Return the methods and what they are made of."""
    methods = [
        {
            "name": name,
            "description": str(pipeline),
            "stages": [stage.name for stage in pipeline.stages],
            "options": offered(pipeline.stages),
        }
        for name, pipeline in snapshot.methods.items()
    ]
    unavailable = [{"name": name, "reason": why} for name, why in snapshot.unavailable.items()]
    return {"default": snapshot.default, "methods": methods, "unavailable": unavailable}


@dataclass(frozen=True)
class EntityList:
    """Entities that are asked for: those that a text finds or a prefix fits; without either, all by id.

    Attributes:
        offset: how many are passed over.
        fields: of :data:`FIELDS`, that each comes with.
    """

    search: str
    prefix: str
    offset: int
    limit: int
    fields: tuple[str, ...] = ()


def known_fields(given: str) -> tuple[str, ...]:
    """Return the fields that a comma-separated list names.

    Raises:
        ProblemError: one is none of :data:`FIELDS`.
    """
    names = [name.strip() for name in given.split(",")] if given else []
    for name in names:
        if name not in FIELDS:
            raise invalid(f"fields: there is no {name[:SHOWN]!r}; there are {', '.join(FIELDS)}", "fields")
    return tuple(dict.fromkeys(names))


def entity_list(snapshot: BundleSnapshot, asked: EntityList) -> Json:
    """Return a page of entities, and whether there are more.

    Milliseconds for a search of 1,000,000 names; with an offset, as long as all up to it take.
    """
    vocabulary = snapshot.vocabulary
    end = asked.offset + asked.limit + 1
    if asked.search:
        found = list(islice(vocabulary.search(asked.search), asked.offset, end))
    elif asked.prefix:
        names = vocabulary.starting_with(asked.prefix, end)[asked.offset :]
        found = [Found(vocabulary.resolve(name), name) for name in names]
    else:
        found = [Found(i, vocabulary.names[i]) for i in islice(vocabulary.ids(asked.offset), asked.limit + 1)]
    entities = [_found_entity(snapshot, one, asked.fields) for one in found[: asked.limit]]
    return {"bundle": snapshot.id, "entities": entities, "more": len(found) > asked.limit}


def looked_up(
    snapshot: BundleSnapshot, names: Sequence[str], timeout_s: float, fields: Sequence[str] = ()
) -> Json:
    """Return the entity of each name, or those whose names are like it, in order.

    Args:
        snapshot: that knows them.
        names: as they are given.
        timeout_s: after which nothing like an unknown name is looked for any more.
        fields: of :data:`FIELDS`, which each entity comes with.
    """
    vocabulary, arrival = snapshot.vocabulary, Arrival(suggestions=LOOKUP_SUGGESTIONS)
    deadline = arrival.deadline(timeout_s)
    results: list[Json] = []
    for name in names:
        entity = vocabulary.find(name)
        known = None if entity is None else entity_of(vocabulary, entity) | _more(snapshot, entity, fields)
        sought = known is None and arrival.may_suggest(deadline)
        like = vocabulary.search(name) if sought else iter(())
        suggestions = [_found_entity(snapshot, one, ()) for one in islice(like, LIKE)]
        results.append({"given": name, "entity": known, "suggestions": suggestions, "sought": sought})
    return {"bundle": snapshot.id, "results": results}


def _found_entity(snapshot: BundleSnapshot, found: Found, fields: Sequence[str]) -> Json:
    """Return the JSON object of an entity that was searched for."""
    more = _more(snapshot, found.entity, fields)
    return {**entity_of(snapshot.vocabulary, found.entity), "matched": found.spelling, **more}


def _more(snapshot: BundleSnapshot, entity: int, fields: Sequence[str]) -> Json:
    """Return the named ones of :data:`FIELDS` of an entity."""
    catalogue = snapshot.catalogue
    values: dict[str, Callable[[int], Any]] = {
        "description": catalogue.description,
        "attributes": catalogue.attributes_of,
    }
    return {name: values[name](entity) for name in fields}


class EntityParts(NamedTuple):
    """What is wanted of an entity: numbers of sentences and neighbours, and vectors of views, with commas."""

    sentences: int
    neighbours: int
    vectors: str = ""


def known_of(snapshot: BundleSnapshot, workspace: Workspace, entity: int, wanted: EntityParts) -> Json:
    """Return what the bundle knows of an entity, but for its neighbours. Reads from the disk.

    Raises:
        ProblemError: vectors of a view that the bundle does not have.
    """
    held = snapshot.catalogue.sentences([entity], MAX_SENTENCES).get(entity, [])
    return {
        "description": snapshot.catalogue.description(entity),
        "attributes": snapshot.catalogue.attributes_of(entity),
        "sentences": sentences_of(held)[: wanted.sentences],
        "images": ImageAddresses(workspace, snapshot.id).of(entity, held),
        **({"vectors": _vectors(snapshot, entity, wanted.vectors)} if wanted.vectors else {}),
    }


def _vectors(snapshot: BundleSnapshot, entity: int, given: str) -> dict[str, list[float | None]]:
    """Return the unit vectors of an entity in some views; a view in which it has none is left out."""
    known, found = views_of(snapshot.manifest), {}
    for view in dict.fromkeys(name.strip() for name in given.split(",")):
        if view not in known:
            raise invalid(
                f"vectors: there is no view {view[:SHOWN]!r}; there are {', '.join(known)}", "vectors"
            )
        vector = read_vectors(snapshot.bundle.path(index_file(view)), mapped=True)[entity]
        if vector.any():
            found[view] = numbers(vector.tolist())
    return found
