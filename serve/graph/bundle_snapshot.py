"""Hold what the ingress needs of one bundle: names, facts, methods. A request uses one to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from engine.catalogue.entities import Catalogue
from engine.catalogue.opening import open_catalogue, open_types
from engine.entity_types import TYPES, EntityTypes
from engine.errors import BundleError
from engine.overlay.state import OverlayLayer, OverlayState, overlay_of
from engine.overlay.vocabulary import OverlaidVocabulary
from engine.stages.base import Pipeline
from engine.stages.type_mentions import LABELS, open_labels
from engine.storage.bundle import Bundle, Manifest
from engine.vocabulary import Vocabulary
from serve.errors import state_of
from serve.graph.plan import default_method


@dataclass(frozen=True)
class BundleSnapshot:
    """A snapshot of one bundle: its vocabulary, catalogue and methods.

    Args:
        manifest: of the bundle.
        vocabulary: its entities.
        catalogue: their descriptions, attributes, sentences and images.
        methods: pipelines by name.
        default: the name of the method that ``default`` stands for.
        routes: names of the routes that a dispatch takes: methods, with and without explanations.
        bundle: its files, some of which are read while it is served.
        unavailable: why other methods are not served, by name.
        layer: the overlay over the bundle, which vocabulary and catalogue show; None: it has none.
    """

    manifest: Manifest
    vocabulary: Vocabulary
    catalogue: Catalogue
    methods: Mapping[str, Pipeline]
    default: str
    routes: frozenset[str]
    bundle: Bundle
    unavailable: Mapping[str, str] = field(default_factory=dict)
    layer: OverlayLayer | None = None

    @classmethod
    def open(
        cls,
        bundle: Bundle,
        methods: Mapping[str, Pipeline],
        routes: Iterable[str],
        unavailable: Mapping[str, str] | None = None,
    ) -> BundleSnapshot:
        """Return the snapshot of a bundle, its tables built now, not under the first request."""
        layer, names = overlay_of(bundle), bundle.vocabulary
        opened = cls(
            bundle.manifest,
            names if layer is None else OverlaidVocabulary(names, layer),
            open_catalogue(bundle),
            methods,
            default_method(methods),
            frozenset(routes),
            bundle,
            unavailable or {},
            layer,
        )
        opened.vocabulary.prepare()
        _ = opened.attributes, opened.types
        if LABELS in bundle.manifest.files:
            _ = opened.predicted_types
        return opened

    @property
    def id(self) -> str:
        """The id of the bundle."""
        return self.manifest.id

    def state(self) -> str:
        """Return "ok", or what has become of the bundle's files. Reads from the disk."""
        try:
            self.bundle.check_present()
        except BundleError as error:
            return state_of(error)
        return "ok"

    @property
    def overlay(self) -> OverlayState:
        """The newest state of the overlay; an empty one where the bundle has none."""
        return OverlayState() if self.layer is None else self.layer.state

    @property
    def attributes(self) -> dict[str, Any]:
        """The JSON object of the attributes that a query can filter by."""
        version = self.overlay.version
        if (known := self._listed.get(version)) is None:
            listed = [
                {"name": name, "values": [value._asdict() for value in values], "more": more}
                for name, values, more in self.catalogue.attributes()
            ]
            known = {"attributes": listed}
            self._listed.clear()
            self._listed[version] = known
        return known

    @cached_property
    def _listed(self) -> dict[int, dict[str, Any]]:
        """The attributes by the version of the overlay: the last one alone is kept."""
        return {}

    @cached_property
    def types(self) -> EntityTypes | None:
        """The types of all entities; None in a bundle without any."""
        return open_types(self.bundle) if TYPES in self.manifest.files else None

    @cached_property
    def predicted_types(self) -> list[str]:
        """The types that mentions may have, by their numbers in a ranking of :class:`TypeMentions`."""
        return open_labels(self.bundle).predicted

    @cached_property
    def stage_names(self) -> frozenset[str]:
        """The names of all stages."""
        return frozenset(stage.name for pipeline in self.methods.values() for stage in pipeline.stages)
