"""Encode seeds that the vocabulary does not hold, from the sentences that come with the query."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import numpy as np
from pydantic import Field

from engine.corpus.inputs.format import InputSettings
from engine.overlay.state import count_entities
from engine.query import Expansion, NewEntity
from engine.retrieval.index import SearchResult, Vectors, hubness_file, index_file, unit, views_of
from engine.retrieval.opening import bundle_index
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker
from engine.storage.bundle import Bundle

ENCODER = "encoder"
"""A bundle's folder with the encoder that made its mask view, and the tokenizer of that."""

MASK = "mask"


class EncodeNewEntities(Stage):
    """Give the new entities of a query a vector in every view; the other queries pass untouched.

    Those that have vectors keep them. Hubness is measured where a new entity asks for it.

    In the mask view it is made as the index makes its own: the unit mean of the mask representations, with
    ``[MASK]`` for the name in each of its sentences (RetExpan, equation 2).

    The other views are made of what a query does not bring: a description, or the words of the whole
    corpus, in a space that the bundle does not hold. There the new entity is placed among the
    ``neighbours`` that it has in the mask view: at the unit mean of their vectors, each weighted by its
    cosine. Who appears in the same sentences is of the same kind, and so near in those views too. Entities of
    an overlay are not among these, so that a vector does not depend on what was added before.

    Args:
        neighbours: entities that a new one is placed among.
        views: the views besides the mask view that later stages read; none: all that the bundle has.
    """

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES

    num_cpus: ClassVar[float] = 0.5  # few queries bring new entities
    unit: ClassVar[str] = "sentences"

    neighbours: int = Field(default=10, ge=1)
    views: tuple[str, ...] = ()

    @property
    def seed_views(self) -> tuple[str, ...]:
        """None that must be given."""
        return ()

    def cost(self, expansion: Expansion) -> int:
        """Return the sentences of the new entities."""
        return max(1, sum(len(entity.sentences) for entity in expansion.query.unencoded))

    def needs(self) -> tuple[str, ...]:
        """Name the encoder and the views."""
        return (ENCODER, *(index_file(view) for view in (MASK, *self.views)))

    def open(self, bundle: Bundle) -> Worker:
        """Load the encoder; of the views only those that new entities need, once there are some.

        Raises:
            BundleError: the bundle has no encoder, or lacks a view.
        """
        from engine.stages.mask_encoder import MaskEncoder

        encoder = bundle.once(ENCODER, lambda folder: MaskEncoder.read(folder, max_length(bundle)))
        for view in (MASK, *self.views):
            bundle.path(index_file(view))

        def run(expansions: list[Expansion]) -> list[Expansion]:
            asked = [(e.query, entity) for e in expansions for entity in e.query.unencoded]
            if not asked:
                return expansions
            mask_ED = unit(np.stack([encoder.vector(query, entity) for query, entity in asked]))
            placed = iter(self._placed(bundle, mask_ED))
            encoded = [_with_vectors(e, placed) if e.query.unencoded else e for e in expansions]
            return [_with_hubness(bundle, e) for e in encoded]

        return run

    def _placed(self, bundle: Bundle, mask_ED: Vectors) -> list[dict[str, Vectors]]:
        """Return each new entity's vectors by view, given those in the mask view."""
        means_ED = mask_ED.astype(np.float64)
        nearest = bundle_index(bundle, MASK).search(means_ED, self.neighbours, [()] * len(mask_ED))
        ids = np.concatenate([found.ids for found in nearest])
        placed = [{MASK: vector_D} for vector_D in mask_ED]
        for view in self.views or other_views(bundle):
            vectors = bundle_index(bundle, view).vectors_of(ids.tolist())
            start = 0
            for own, found in zip(placed, nearest, strict=True):
                own[view] = _among(found, vectors[start : start + len(found.ids)])
                start += len(found.ids)
        return placed


def _with_vectors(expansion: Expansion, placed: Iterator[dict[str, Vectors]]) -> Expansion:
    """Return the expansion with the next vectors in its new entities."""
    new = tuple(e if e.vectors else replace(e, vectors=next(placed)) for e in expansion.query.new)
    return replace(expansion, query=replace(expansion.query, new=new))


def _with_hubness(bundle: Bundle, expansion: Expansion) -> Expansion:
    """Return the expansion with the hubness of the new entities of which it is asked for."""
    new = expansion.query.new
    if all(entity.hubness is None for entity in new):
        return expansion
    measured = tuple(e if e.hubness is None else replace(e, hubness=_hubness(bundle, e)) for e in new)
    return replace(expansion, query=replace(expansion.query, new=measured))


def _hubness(bundle: Bundle, entity: NewEntity) -> dict[str, float]:
    """Return an entity's mean cosine to its nearest ones of the bundle, in each view that has hubness.

    All of the bundle are looked at; of a large one its own hubness is estimated from a sample.
    """
    from engine.retrieval.views import NEIGHBOURS  # with torch, which a description does without

    neighbours = min(NEIGHBOURS, max(count_entities(bundle.path("entities.parquet")) // 4, 1))
    found = {}
    for view, vector in entity.vectors.items():
        if hubness_file(view) in bundle.manifest.files and vector.any():
            mean = vector.astype(np.float64)[None]
            (near,) = bundle_index(bundle, view).search(mean, neighbours, [()], exact=True)
            found[view] = float(near.products.mean())
    return found


def _among(found: SearchResult, vectors_ND: Vectors) -> Vectors:
    """Return the unit mean of vectors, weighted by their entities' cosines; zeros if none is near."""
    weights_N = np.maximum(found.products, 0).astype(np.float64)
    return unit(weights_N @ vectors_ND)


def other_views(bundle: Bundle) -> list[str]:
    """Return the bundle's views besides the mask view."""
    return [view for view in views_of(bundle.manifest) if view != MASK]


def max_length(bundle: Bundle) -> int:
    """Return the limit on tokens that the bundle's mask view was made with."""
    default = InputSettings.model_fields["max_length"].default
    return int(bundle.manifest.settings.get("max_length", default))
