"""Encode entities under a query: their sentences with the query's seeds appended."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.corpus.inputs.masking import MentionMasker, load_tokenizer
from engine.corpus.inputs.seed_text import SeedText, seed_room
from engine.models.device import worker_device
from engine.models.families import position_limit
from engine.models.mask_states import mask_states
from engine.models.text import TextEncoder
from engine.query import Ids, NewEntity, Query
from engine.retrieval.entity_sentences import EntitySentences, Floats, Sentence
from engine.retrieval.index import Vectors, mean_of, unit
from engine.stages.mask_encoder import masked_sentences

CACHED_BYTES = 128 << 20
"""Vectors that are kept of the last queries: of 300 entities of 768 numbers those of 140 queries."""


class Late(Exception):
    """The query's deadline came before its entities were encoded."""


class Asked(NamedTuple):
    """How many sentences of candidates and of seeds are read, None: all; of how many candidates all are read
    then; and whether the means of the others are estimated."""

    sentences: int | None
    whole: int
    seed_sentences: int | None
    estimated: bool


class Conditioned(NamedTuple):
    """Unit vectors under a query of its seeds and of others, and how many sentences were read for them.

    A row of zeros is a seed without sentences.
    """

    seeds_SD: Vectors
    others_nD: Vectors
    encoded: int

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self.seeds_SD.nbytes + self.others_nD.nbytes


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
        while sum(one.nbytes for one in self._kept.values()) > CACHED_BYTES:
            self._kept.popitem(last=False)
        return found

    def states(
        self, rows: Sequence[int], text: Sentence, before_pass: Callable[[], None] = lambda: None
    ) -> npt.NDArray[np.float32]:
        """Return the states at the mask of some sentences of the vocabulary with a seed text behind, [n, D].

        Args:
            rows: numbers of sentences (:meth:`EntitySentences.rows`).
            text: token ids.
            before_pass: called before each forward pass.
        """
        ids = [np.concatenate([self.sentences.ids(row), text]) for row in rows]
        return mask_states(self._encoder, ids, self.sentences.mask_index[list(rows)].tolist(), before_pass)

    def _encode(self, query: Query, others: Ids, asked: Asked, text: Sentence) -> Conditioned:
        def check() -> None:
            if query.deadline is not None and query.deadline.remaining() <= 0:
                raise Late

        new = [self._new(query, entity, text, check) for entity in query.new]
        known = [seed for seed in query.seeds if seed >= 0]
        entities = [*known, *others.tolist()]
        most = [asked.seed_sentences] * len(known) + [asked.sentences] * len(others)
        states = self._read(
            [self.sentences.rows(*one) for one in zip(entities, most, strict=True)], text, check
        )

        def vectors() -> Vectors:
            means = iter(self.sentences.means_under(entities, states, asked.estimated))
            seeds = [next(means) if seed >= 0 else new[-1 - seed] for seed in query.seeds]
            return unit(np.stack([*seeds, *means]))

        found = vectors()
        if asked.whole and asked.sentences is not None:
            scores = found[len(query.seeds) :] @ mean_of(found[: len(query.positive)])
            first = [len(known) + place for place in np.lexsort((others, -scores))[: asked.whole].tolist()]
            rest = [self.sentences.rows(entities[place], None)[len(states[place]) :] for place in first]
            for place, more in zip(first, self._read(rest, text, check), strict=True):
                states[place] = np.concatenate([states[place], more])
            found = vectors()
        encoded = sum(map(len, states)) + sum(len(entity.sentences) for entity in query.new)
        return Conditioned(found[: len(query.seeds)], found[len(query.seeds) :], encoded)

    def _read(
        self, rows: Sequence[range], text: Sentence, check: Callable[[], None]
    ) -> list[npt.NDArray[np.float32]]:
        """Return the states of several groups of sentences, all of them in the same passes."""
        states_nD = self.states([row for own in rows for row in own], text, check)
        return np.split(states_nD, np.cumsum([len(own) for own in rows])[:-1])

    def _new(self, query: Query, entity: NewEntity, text: Sentence, check: Callable[[], None]) -> Floats:
        inputs = masked_sentences(self._masker, query, entity)
        ids = [np.array([*one.input_ids, *text], np.int32) for one in inputs]
        states_nD = mask_states(self._encoder, ids, [one.mask_index for one in inputs], check)
        return np.asarray(states_nD.astype(np.float64).mean(axis=0))
