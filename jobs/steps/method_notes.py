"""Say what a report must tell beside the figures of a bundle's methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import StorageError
from engine.evaluation.list_view import list_view_note
from engine.evaluation.seen_seeds import ListSeeds, joined, lists_read, seen_seeds_note
from engine.plugins import find_method, installed, is_ours
from engine.queries.formats import LabelledQuery
from engine.queries.stored import StoredResults
from engine.stages.base import Pipeline
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from engine.training.contrast_lists import open_lists


@dataclass(frozen=True)
class MethodNotes:
    """Notes on the methods of a bundle, measured on some queries.

    Args:
        workspace: where lists are kept.
        bundle: whose methods are measured.
        measured: the queries.
        read: seeds of lists, by key, as they were read.
    """

    workspace: Workspace
    bundle: Bundle
    measured: Sequence[LabelledQuery]
    read: dict[str, ListSeeds | None] = field(default_factory=dict)

    def on(self, pipeline: Pipeline) -> str | None:
        """Return what must be told of a method; None: nothing."""
        settings = self.bundle.manifest.settings
        notes = [list_view_note(pipeline, settings.get("lm", {}))]
        for key in lists_read(pipeline, settings):
            notes.append(seen_seeds_note(key, self._seeds(key), self.measured))
        return joined(notes)

    def on_results(self, results: StoredResults) -> str | None:
        """Return what must be told of the method that wrote some results.

        Of a method whose module would have to be imported for it, nothing is told.
        """
        name = results.run.method
        return self.on(find_method(name)) if is_ours(name) or name in installed() else None

    def on_rows(
        self,
        results: Mapping[str, StoredResults],
        methods: Mapping[str, Pipeline],
        others: Mapping[str, tuple[Pipeline, Bundle]],
    ) -> dict[str, str | None]:
        """Return the notes of a report's rows by their names; ``others`` are methods of other bundles."""
        notes = {name: self.on_results(one) for name, one in results.items()}
        notes |= {name: self.on(pipeline) for name, pipeline in methods.items()}
        elsewhere = {name: replace(self, bundle=bundle).on(one) for name, (one, bundle) in others.items()}
        return notes | elsewhere

    def _seeds(self, key: str) -> ListSeeds | None:
        if key not in self.read:
            self.read[key] = self._opened(key)
        return self.read[key]

    def _opened(self, key: str) -> ListSeeds | None:
        try:
            lists = open_lists(self.workspace, key).read()
        except StorageError:
            return None
        sides = ((frozenset(one.positive.tolist()), frozenset(one.negative.tolist())) for one in lists)
        return ListSeeds(key, frozenset(sides))
