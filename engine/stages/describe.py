"""Vectors for seeds that the vocabulary does not hold, made of the sentences that come with the query."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch.nn.utils.rnn import pad_sequence

from engine.bundle import Bundle
from engine.corpus.inputs import InputSettings
from engine.corpus.masking import MaskedInput, MentionMasker, load_tokenizer
from engine.corpus.mentions import MentionFinder
from engine.encoders.text import TextEncoder
from engine.errors import QueryError
from engine.query import Expansion, NewEntity, Query
from engine.retrieval.index import Found, Vectors, index_file, open_index, unit
from engine.stages.base import Stage, Worker

ENCODER = "encoder"
"""A bundle's folder with the encoder that made its mask view, and the tokenizer of that."""

MASK = "mask"


class Describe(Stage):
    """Place the new entities of a query among those of the vocabulary; the other queries pass untouched.

    In the mask view an entity is placed as the index places its own: at the unit mean of the encoder's
    states at ``[MASK]``, which stands for the name in each of its sentences (RetExpan, equation 2).

    The other views are made of what a query does not bring: a description, or the words of the whole
    corpus, in a space that the bundle does not hold. There the new entity is placed among the
    ``neighbours`` that it has in the mask view: at the unit mean of their vectors, each weighted by its
    cosine. Who appears in the same sentences is of the same kind, and so near in those views too.

    Args:
        neighbours: entities that a new one is placed among.
        views: the views besides the mask view that later stages read; none: all that the bundle has.
    """

    unit: ClassVar[str] = "sentences"

    neighbours: int = Field(default=10, ge=1)
    views: tuple[str, ...] = ()

    def cost(self, expansion: Expansion) -> int:
        """Return the sentences of the new entities."""
        return max(1, sum(len(entity.sentences) for entity in expansion.query.new))

    def open(self, bundle: Bundle) -> Worker:
        """Load the encoder; of the views only those that new entities need, once there are some.

        Raises:
            BundleError: the bundle has no encoder, or lacks a view.
        """
        encoder = bundle.once(ENCODER, lambda folder: MaskEncoder.read(folder, max_length(bundle)))
        for view in (MASK, *self.views):
            bundle.path(index_file(view))

        def run(expansions: list[Expansion]) -> list[Expansion]:
            asked = [(e.query, entity) for e in expansions for entity in e.query.new]
            if not asked:
                return expansions
            mask_ED = np.stack([encoder.vector(query, entity) for query, entity in asked])
            placed = iter(self._placed(bundle, mask_ED))
            return [_with_vectors(e, placed) if e.query.new else e for e in expansions]

        return run

    def _placed(self, bundle: Bundle, mask_ED: Vectors) -> list[dict[str, Vectors]]:
        """Return each new entity's vectors by view, given those in the mask view."""
        means_ED = mask_ED.astype(np.float64)
        nearest = open_index(bundle, MASK).search(means_ED, self.neighbours, [()] * len(mask_ED))
        ids = np.concatenate([found.ids for found in nearest])
        placed = [{MASK: vector_D} for vector_D in mask_ED]
        for view in self.views or other_views(bundle):
            vectors = open_index(bundle, view).vectors_of(ids.tolist())
            start = 0
            for own, found in zip(placed, nearest, strict=True):
                own[view] = _among(found, vectors[start : start + len(found.ids)])
                start += len(found.ids)
        return placed


def _with_vectors(expansion: Expansion, placed: Iterator[dict[str, Vectors]]) -> Expansion:
    """Return the expansion with the next vectors in its new entities."""
    new = tuple(replace(entity, vectors=next(placed)) for entity in expansion.query.new)
    return replace(expansion, query=replace(expansion.query, new=new))


def _among(found: Found, vectors_ND: Vectors) -> Vectors:
    """Return the unit mean of vectors, weighted by their entities' cosines; zeros if none is near."""
    weights_N = np.maximum(found.products, 0).astype(np.float64)
    return unit(weights_N @ vectors_ND)


def other_views(bundle: Bundle) -> list[str]:
    """Return the bundle's views besides the mask view."""
    views = [Path(name).stem for name in bundle.manifest.files if name == index_file(Path(name).stem)]
    return sorted(view for view in views if view != MASK)


def max_length(bundle: Bundle) -> int:
    """Return the limit on tokens that the bundle's mask view was made with."""
    default = InputSettings.model_fields["max_length"].default
    return int(bundle.manifest.settings.get("max_length", default))


class MaskEncoder:
    """Makes vectors of the mask view."""

    def __init__(self, encoder: TextEncoder, masker: MentionMasker) -> None:
        self._encoder, self._masker = encoder, masker

    @classmethod
    def read(cls, folder: Path, max_length: int) -> MaskEncoder:
        """Load a folder with safetensors and a tokenizer.

        Args:
            folder: of a BERT-like model.
            max_length: tokens of a sentence; longer ones are cut around the mention.
        """
        return cls(TextEncoder.load(str(folder)), MentionMasker(load_tokenizer(folder), max_length))

    def vector(self, query: Query, entity: NewEntity) -> Vectors:
        """Return the unit vector [D] of one of a query's new entities.

        Its sentences alone share a forward pass, so that the vector does not depend on other entities.

        Raises:
            QueryError: a sentence does not mention it.
        """
        masked = self._masked(query, entity)
        ids_BL = pad_sequence([torch.tensor(one.input_ids) for one in masked], batch_first=True)
        lengths_B = torch.tensor([len(one.input_ids) for one in masked])
        position_B = torch.tensor([one.mask_index for one in masked])
        with torch.inference_mode():
            states_BLD = self._encoder.lower_states(ids_BL, lengths_B)
            at_mask_BD = self._encoder.last(states_BLD, lengths_B, position_B)
        return unit(at_mask_BD.double().sum(dim=0).numpy())

    def _masked(self, query: Query, entity: NewEntity) -> Sequence[MaskedInput]:
        finder = MentionFinder([entity.name], [[]])
        spans = []
        for number, sentence in enumerate(entity.sentences, 1):
            span = finder.find(0, sentence)
            if isinstance(span, str):
                raise QueryError(
                    f"query {query.id!r}: sentence {number} of the new entity {entity.name!r} {span}; "
                    "give sentences in which the name stands as it is given"
                )
            spans.append(span)
        starts, ends, _ = zip(*spans, strict=True)
        return self._masker.encode(entity.sentences, starts, ends)
