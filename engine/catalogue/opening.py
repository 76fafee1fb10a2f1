"""Open a bundle's catalogue, and the types of its entities, once a process."""

from __future__ import annotations

from pathlib import Path

from engine.catalogue.entities import Catalogue
from engine.catalogue.overlaid import OverlaidCatalogue
from engine.catalogue.sentences import SENTENCES
from engine.entity_types import TYPES, EntityTypes
from engine.overlay.state import overlay_of
from engine.storage.bundle import Bundle

OVERLAID = "overlaid catalogue"
"""What a bundle with an overlay is provided with, once."""


def open_catalogue(bundle: Bundle) -> Catalogue:
    """Return the bundle's catalogue, read once a process, with the entities of an overlay if it has one."""
    base, layer = bundle_catalogue(bundle), overlay_of(bundle)
    if layer is None:
        return base
    found = bundle.provided(OVERLAID)
    if not isinstance(found, OverlaidCatalogue):
        found = OverlaidCatalogue(base, layer)
        bundle.provide(OVERLAID, found)
    return found


def bundle_catalogue(bundle: Bundle) -> Catalogue:
    """Return the bundle's own catalogue, read once a process."""

    def read(entities: Path) -> Catalogue:
        sentences = bundle.path(SENTENCES) if SENTENCES in bundle.manifest.files else None
        return Catalogue(entities, sentences, open_types(bundle) if TYPES in bundle.manifest.files else None)

    return bundle.once("entities.parquet", read)


def open_types(bundle: Bundle) -> EntityTypes:
    """Return the types of a bundle's entities, read once a process.

    Raises:
        BundleError: it holds none.
    """
    return bundle.once(TYPES, lambda file: EntityTypes.read(file, len(bundle.vocabulary)))
