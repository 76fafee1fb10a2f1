"""Run stages that know a bundle's entities alone, where it has an overlay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from engine.overlay.state import OverlayLayer
from engine.query import Expansion
from engine.stages.base import QueryFeature, Stage, without


def taken_by(stage: Stage, expansion: Expansion, layer: OverlayLayer | None) -> Expansion:
    """Return an expansion as a stage takes it: without entities of an overlay that it cannot rank.

    Where there are such entities, ``degraded`` says so. The query comes back as the stage is to see it: the
    caller gives the answer the one that was asked.
    """
    if layer is None or QueryFeature.OVERLAY in stage.supported:
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


def without_gone(expansion: Expansion, layer: OverlayLayer | None) -> Expansion:
    """Return an expansion without what was deleted while it was made, or was added after it was asked."""
    if layer is None:
        return expansion
    ids, state = expansion.ranking.ids, layer.state
    there = np.where(ids < layer.first, ~np.isin(ids, state.deleted), state.places(ids) >= 0)
    return (
        expansion
        if there.all()
        else replace(expansion, ranking=expansion.ranking.take(np.flatnonzero(there)))
    )
