"""What each method of the clients asks for: the same for both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

Seed = str | int | Mapping[str, Any]
"""A name or alias, an entity id, ``{"name", "sentences"}`` of a new entity, or ``{"name", "weight"}``."""

CURRENT = "current"
"""Stands for the id of the bundle that is served."""


class Call(NamedTuple):
    """A call of the service.

    Attributes:
        method: of HTTP.
        path: from the service's address on.
        given: what httpx makes a request of: ``json`` or ``params``.
        key: of the answer's object, what is wanted; None: all of it.
    """

    method: str
    path: str
    given: Mapping[str, Any] = {}
    key: str | None = None


ATTRIBUTES = Call("GET", "/v1/attributes", key="attributes")
METHODS = Call("GET", "/v1/methods")
BUNDLE = Call("GET", "/v1/bundle")
READY = "/readyz"


def expand(
    positive: Sequence[Seed], negative: Sequence[Seed], options: Mapping[str, Any], to: str = ""
) -> Call:
    """Return the call of a query; ``to``: what follows the path."""
    if isinstance(positive, str) or isinstance(negative, str):
        raise TypeError("seeds are a list, also where there is one")
    query = {"positive": list(positive), "negative": list(negative), **options}
    return Call("POST", f"/v1/expand{to}", {"json": query})


def map_entities(
    positive: Sequence[Seed], negative: Sequence[Seed], entities: Sequence[str | int], explain: bool
) -> Call:
    """Return the call that lays entities out."""
    if any(isinstance(one, str) for one in (positive, negative, entities)):
        raise TypeError("entities are a list, also where there is one")
    asked = {"positive": list(positive), "negative": list(negative), "entities": list(entities)}
    return Call("POST", "/v1/map", {"json": {**asked, "explain": explain}})


def expand_batch(queries: Sequence[Mapping[str, Any]]) -> Call:
    """Return the call of several queries."""
    return Call("POST", "/v1/expand/batch", {"json": {"queries": list(queries)}}, "results")


def type_text(text: str, mentions: Sequence[tuple[int, int]] | None) -> Call:
    """Return the call that types the mentions of a text."""
    places = None if mentions is None else [{"start": start, "end": end} for start, end in mentions]
    asked = {"text": text} if places is None else {"text": text, "mentions": places}
    return Call("POST", "/v1/type", {"json": asked})


def entities(search: str, limit: int, offset: int, fields: Sequence[str]) -> Call:
    """Return the call of a search of names."""
    params = {"search": search, "limit": limit, "offset": offset, "fields": ",".join(fields)}
    return Call("GET", "/v1/entities", {"params": params}, "entities")


def look_up(names: Sequence[str], fields: Sequence[str]) -> Call:
    """Return the call that looks up names."""
    body = {"names": list(names), "fields": list(fields)}
    return Call("POST", "/v1/entities/lookup", {"json": body}, "results")


def upsert(
    name: str,
    sentences: Sequence[str],
    aliases: Sequence[str],
    description: str,
    attributes: Mapping[str, Sequence[str]],
) -> Call:
    """Return the call that adds or replaces an entity."""
    if isinstance(sentences, str) or isinstance(aliases, str):
        raise TypeError("sentences and aliases are lists, also where there is one")
    values = {attribute: list(own) for attribute, own in attributes.items()}
    about = {"aliases": list(aliases), "description": description, "attributes": values}
    body = {"sentences": list(sentences), **about}
    return Call("PUT", f"/v1/entities/{_segment(name)}", {"json": body})


def delete(name: str) -> Call:
    """Return the call that deletes an entity."""
    return Call("DELETE", f"/v1/entities/{_segment(name)}")


def overlay(limit: int, offset: int) -> Call:
    """Return the call that lists what was added and deleted."""
    return Call("GET", "/v1/overlay", {"params": {"limit": limit, "offset": offset}})


def entity(
    given: str | int, sentences: int, neighbours: int, bundle: str | None, vectors: Sequence[str] = ()
) -> Call:
    """Return the call for what is known of an entity."""
    views = {"vectors": ",".join(vectors)} if vectors else {}
    params = {"params": {"sentences": sentences, "neighbours": neighbours, **views}}
    if isinstance(given, str):
        return Call("GET", f"/v1/entities/{_segment(given)}", params)
    return Call("GET", f"/v1/bundles/{_segment(bundle or CURRENT)}/entities/{given}", params)


def set_agreement(set_id: str, curator: str, limit: int) -> Call:
    """Return the call for how far the curators of a set agree."""
    return Call(
        "GET", f"/v1/sets/{_segment(set_id)}/agreement", {"params": {"curator": curator, "limit": limit}}
    )


def _segment(text: str) -> str:
    """Return a text as one segment of a path; a name of dots alone would be a step to another path."""
    return quote(text, safe="") if text.strip(".") else text.replace(".", "%2E")
