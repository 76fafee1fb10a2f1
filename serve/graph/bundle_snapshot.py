"""What is served at one time: a bundle's names, facts and methods. A request uses one snapshot to its end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from engine.catalogue import Catalogue, open_catalogue
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle, Manifest
from engine.vocabulary import Vocabulary
from serve.graph.plan import default_method


@dataclass(frozen=True)
class BundleSnapshot:
    """One bundle's methods over one vocabulary.

    Args:
        manifest: of the bundle.
        vocabulary: its entities.
        catalogue: what is known of them.
        methods: descriptions by name.
        stages: names of their stages, in order, by method.
        default: the name of the method that ``default`` stands for.
        routes: what a dispatch may be asked for: methods, and what goes with them.
    """

    manifest: Manifest
    vocabulary: Vocabulary
    catalogue: Catalogue
    methods: Mapping[str, str]
    stages: Mapping[str, Sequence[str]]
    default: str
    routes: frozenset[str]

    @classmethod
    def open(cls, bundle: Bundle, methods: Mapping[str, Pipeline], routes: Iterable[str]) -> BundleSnapshot:
        """Return the snapshot of a bundle, its tables built now, not under the first request."""
        opened = cls(
            bundle.manifest,
            bundle.vocabulary,
            open_catalogue(bundle),
            {name: str(pipeline) for name, pipeline in methods.items()},
            {name: [stage.name for stage in pipeline.stages] for name, pipeline in methods.items()},
            default_method(methods),
            frozenset(routes),
        )
        opened.vocabulary.closest("")
        opened.vocabulary.find("")
        _ = opened.attributes
        return opened

    @property
    def id(self) -> str:
        """The bundle's."""
        return self.manifest.id

    @cached_property
    def attributes(self) -> dict[str, Any]:
        """The JSON object of what entities can be chosen by."""
        listed = [
            {"name": name, "values": [value._asdict() for value in values], "more": more}
            for name, values, more in self.catalogue.attributes()
        ]
        return {"attributes": listed}

    @cached_property
    def stage_names(self) -> frozenset[str]:
        """The names of all stages."""
        return frozenset(name for stages in self.stages.values() for name in stages)
