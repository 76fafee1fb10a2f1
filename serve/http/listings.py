"""Describe what is served: the bundle, its methods, its entities. What takes no stage is answered here."""

from __future__ import annotations

import re
from typing import Any

from engine.stages.options import offered
from engine.storage.workspace import Workspace
from serve.graph.bundle_snapshot import BundleSnapshot
from serve.http.explanations import sentences_of
from serve.http.images import MAX_SENTENCES, ImageAddresses
from serve.http.requests import entity_of

Json = dict[str, Any]

_PLACE = re.compile(r"(/|\.{1,2}/|~[^/]*/|[A-Za-z]:\\|[a-z][a-z0-9+.-]*://).*", re.DOTALL)
"""A path that no model of a hub has as its name, or an address."""


def bundle_listing(snapshot: BundleSnapshot, refused: tuple[str, str] | None) -> Json:
    """Return what is served, and what it was made from; of places on machines their last part alone."""
    about = snapshot.manifest.model_dump(mode="json", exclude={"files", "format_version", "settings"})
    return {
        **about,
        "settings": without_places(snapshot.manifest.settings),
        "files": sorted(snapshot.manifest.files),
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


def completions(snapshot: BundleSnapshot, prefix: str, limit: int) -> Json:
    """Return entities with a spelling that begins with ``prefix``."""
    vocabulary = snapshot.vocabulary
    names = vocabulary.starting_with(prefix, limit)
    found = [entity_of(vocabulary, vocabulary.resolve(name)) for name in names]
    return {"bundle": snapshot.id, "entities": found}


def known_of(snapshot: BundleSnapshot, workspace: Workspace, entity: int, n: int) -> Json:
    """Return what the catalogue knows of an entity, with n of its sentences. Reads from the disk."""
    held = snapshot.catalogue.sentences([entity], MAX_SENTENCES).get(entity, [])
    return {
        "description": snapshot.catalogue.description(entity),
        "attributes": snapshot.catalogue.attributes_of(entity),
        "sentences": sentences_of(held)[:n],
        "images": ImageAddresses(workspace, snapshot.id).of(entity, held),
    }
