"""Encode entities under a query: their sentences with the query's seeds appended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.corpus.inputs.seed_text import SeedText, seed_room
from engine.models.device import worker_device
from engine.models.families import position_limit
from engine.models.mask_states import mask_states
from engine.models.text import TextEncoder
from engine.query import Ids, Query
from engine.retrieval.entity_sentences import Drawn, EntitySentences
from engine.retrieval.index import Vectors, unit
from engine.stages.mask_encoder import masked_sentences

CACHED = 64
"""Queries whose vectors are kept: 64 of 600 vectors of 768 numbers are 118 MB."""


class Late(Exception):
    """The query's deadline came before its entities were encoded."""


class Asked(NamedTuple):
    """How many sentences of candidates and of seeds are encoded, None: all; and whether means are
    corrected."""

    sentences: int | None
    seed_sentences: int | None
    corrected: bool


class Conditioned(NamedTuple):
    """Unit vectors under a query, zeros for one without sentences: of its seeds, [S, D], and of others [n,
    D]; and how many sentences were encoded for them."""

    seeds_SD: Vectors
    others_nD: Vectors
    encoded: int


class ConditionedEncoder:
    """An encoder of entities by their sentences with seeds appended.

    Args:
        encoder: of a contrastive training, with the two tokens.
        masker: of sentences that come with a query.
        seed_text: of its tokenizer.
        sentences: of the vocabulary.
        names: of the vocabulary.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        masker: MentionMasker,
        seed_text: SeedText,
        sentences: EntitySentences,
        names: Sequence[str],
    ) -> None:
        self._encoder, self._masker, self._seed_text = encoder, masker, seed_text
        self.sentences, self._names = sentences, names
        self._kept: OrderedDict[tuple[object, ...], Conditioned] = OrderedDict()

    @classmethod
    def read(cls, folder: Path, names: Sequence[str], max_length: int) -> ConditionedEncoder:
        """Load a bundle's folder with the encoder and the sentences.

        Args:
            folder: as :func:`jobs.steps.contrast_view.build_contrast` writes it.
            names: of the vocabulary.
            max_length: tokens of a sentence at most, without seeds.

        Raises:
            UserError: the encoder has no tokens for seeds, or no positions.
        """
        encoder = TextEncoder.load(str(folder / "encoder")).to(worker_device())
        tokenizer = load_tokenizer(folder / "encoder")
        sentences = EntitySentences.read(folder / "sentences")
        positions = position_limit(encoder.model.config)
        room = seed_room(positions, sentences.longest, "the contrast encoder")
        masker = MentionMasker(tokenizer, min(max_length, positions - room))
        return cls(encoder, masker, SeedText(tokenizer, room), sentences, names)

    def vectors(self, query: Query, others: Ids, asked: Asked) -> Conditioned:
        """Return the vectors of a query's seeds and of other entities under the query.

        What one query asks shares the forward passes, and nothing of another does: an answer does not depend
        on what else a worker does. The same question again is answered from memory.

        Raises:
            QueryError: a sentence of a new entity does not mention it.
            Late: the deadline has come.
        """
        names = [query.seed_names(seeds, self._names) for seeds in (query.positive, query.negative)]
        text = np.array(self._seed_text.ids(*names), np.int32)
        # New entities are others with every query, whatever their numbers.
        new = tuple((entity.name, entity.sentences) for entity in query.new)
        key = (text.tobytes(), query.seeds, new, others.tobytes(), asked)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]._replace(encoded=0)
        found = self._encode(query, others, asked, text)
        self._kept[key] = found
        if len(self._kept) > CACHED:
            self._kept.popitem(last=False)
        return found

    def _encode(self, query: Query, others: Ids, asked: Asked, text: np.ndarray) -> Conditioned:
        drawn = [self._of_seed(query, seed, asked.seed_sentences) for seed in query.seeds]
        drawn += [self.sentences.first(entity, asked.sentences) for entity in others.tolist()]
        ids = [np.concatenate([one, text]) for own in drawn for one in own.ids]
        masks = [place for own in drawn for place in own.mask_index]

        def check() -> None:
            if query.deadline is not None and query.deadline.remaining() <= 0:
                raise Late

        states_nD = mask_states(self._encoder, ids, masks, check)
        bounds = np.cumsum([0, *(len(own.ids) for own in drawn)])
        means = np.zeros((len(drawn), self._encoder.dim))
        for place, (entity, (begin, end)) in enumerate(
            zip([*query.seeds, *others.tolist()], pairwise(bounds.tolist()), strict=True)
        ):
            own_nD = states_nD[begin:end]
            if entity >= 0:
                means[place] = self.sentences.mean_under(entity, own_nD, asked.corrected)
            elif len(own_nD):
                means[place] = own_nD.astype(np.float64).mean(axis=0)
        vectors = unit(means)
        return Conditioned(vectors[: len(query.seeds)], vectors[len(query.seeds) :], len(ids))

    def _of_seed(self, query: Query, seed: int, n: int | None) -> Drawn:
        if seed >= 0:
            return self.sentences.first(seed, n)
        inputs = masked_sentences(self._masker, query, query.new[-1 - seed])
        return Drawn([np.array(one.input_ids, np.int32) for one in inputs], [i.mask_index for i in inputs])
