"""Run stages over a bundle with an overlay: what only the bundle's entities are known to, and new hubness."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np

from engine.overlay.state import OverlayLayer, count_entities
from engine.query import Expansion, NewEntity
from engine.retrieval.index import Index, hubness_file, views_of
from engine.retrieval.opening import bundle_index
from engine.stages.base import Stage, Worker, without
from engine.storage.bundle import Bundle


def taken_by(stage: Stage, expansion: Expansion, layer: OverlayLayer | None) -> Expansion:
    """Return an expansion as a stage takes it: without entities of an overlay that it cannot rank.

    Where there are such entities, ``degraded`` says so. The query comes back as the stage is to see it: the
    caller gives the answer the one that was asked.
    """
    if layer is None or stage.ranks_overlay:
        return expansion
    ranking, query = expansion.ranking, expansion.query
    kept = np.flatnonzero(ranking.ids < layer.first)
    if any(one >= layer.first for one in query.exclude):
        query = replace(query, exclude=tuple(one for one in query.exclude if one < layer.first))
    found = replace(
        expansion, query=query, ranking=ranking.take(kept) if len(kept) < len(ranking) else ranking
    )
    if not (n := len(layer.state.added)):
        return found
    return without(found, stage.name, f"{UNRANKED} ({n})")


UNRANKED = "does not rank entities that were added since the bundle was made"
"""What ``degraded`` says of a stage that knows the bundle's entities alone; their number follows."""


class MeasureHubness(Stage):
    """Measure the hubness of new entities: in each view that has any, as the bundle's own was measured.

    The mean cosine to the nearest entities of the bundle, all of which are looked at. (Of a bundle of more
    than :data:`engine.retrieval.views.MAX_REFERENCE` entities its own is estimated from a sample.)
    """

    weighs_seeds: ClassVar[bool] = True
    takes_negative_alone: ClassVar[bool] = True
    takes_overlay: ClassVar[bool] = True
    takes_context: ClassVar[bool] = True

    num_cpus: ClassVar[float] = 0.1  # a search for each new entity

    def open(self, bundle: Bundle) -> Worker:
        """Read the indexes of the views with hubness."""
        from engine.retrieval.views import NEIGHBOURS  # with torch, which a description does without

        names = bundle.manifest.files
        views = [view for view in views_of(bundle.manifest) if hubness_file(view) in names]
        indexes = {view: bundle_index(bundle, view) for view in views}
        neighbours = min(NEIGHBOURS, max(count_entities(bundle.path("entities.parquet")) // 4, 1))

        def run(expansions: list[Expansion]) -> list[Expansion]:
            done = []
            for e in expansions:
                new = tuple(_measured(entity, indexes, neighbours) for entity in e.query.new)
                done.append(replace(e, query=replace(e.query, new=new)))
            return done

        return run


def _measured(entity: NewEntity, indexes: Mapping[str, Index], neighbours: int) -> NewEntity:
    found = dict(entity.hubness)
    for view, index in indexes.items():
        vector = entity.vectors.get(view)
        if vector is None or not vector.any():
            continue
        (near,) = index.search(vector.astype(np.float64)[None], neighbours, [()], exact=True)
        found[view] = float(near.products.mean()) if len(near.products) else 0.0
    return replace(entity, hubness=found)
