"""Rank recalled entities by vectors that are made under the query: its seeds appended to every sentence.

RetExpan with contrastive learning (section 5.1.2) trains its encoder on sentences with a query's seeds behind
them, and reads every sentence of every entity so, anew for each query. Here a stage before recalls by vectors
without seeds, and only what it recalled, and the seeds, is read anew.

Arithmetic, on wikispeedia (4,092 entities, 80,141 sentences drawn of them, 34 tokens each, and 29 of seeds
behind): the authors read 80,141 sentences a query. A recall of 300 with 2 sentences each, and all of 8 seeds
and of the first 40, is 1,513: a 53rd (``python -m benchmarks.conditioned_retrieval --count``). A model of P
parameters in its layers takes 2 P operations a token: of 10.6 million (MiniLM) and 64 tokens that is 2.1
TFLOP a query, not 109; of BERT-base (85 million) 16, not 870. No state of a sentence without seeds is of use:
with full attention, every one of its tokens reads the seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from engine.query import Expansion, Ids, Ranking
from engine.retrieval.entity_sentences import CONTRAST
from engine.retrieval.index import VectorIndex, Vectors, mean_of
from engine.stages.base import Stage, Worker, by_settings, without
from engine.stages.encode_new_entities import max_length
from engine.stages.retrieve import Matching, allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle

if TYPE_CHECKING:  # what only describes a pipeline loads no model library
    from engine.stages.conditioned_encoder import ConditionedEncoder

MOST_SENTENCES = 30
"""Sentences of an entity that stages count on; a corpus may have drawn more or fewer."""


class ConditionedRetrieve(Stage):
    """Rank recalled entities by mean cosine to the positive seeds, all of them read under the query.

    The seed text (:mod:`engine.corpus.inputs.seed_text`) goes behind the sentences of the candidates and of
    the seeds alike; an entity is the unit mean of its states at the mask, as RetExpan's are (equations 2 and
    5). Evidence: ``positive`` and ``negative``, the mean cosines to the seeds of both kinds, and ``recall``,
    the score that it was recalled with. ``SegmentRerank(by="evidence")`` reads ``negative``.

    The same query again is answered from memory. Where the query's deadline comes before all is read, the
    ranking stays as it was recalled, with a note.

    **Where this differs.** The authors read all sentences of all entities: ``everything``, with ``sentences``
    and ``seed_sentences`` none. Ours reads what was recalled, a few sentences of each, and estimates the mean
    over all from these (``estimated``, :mod:`engine.retrieval.entity_sentences`). Their seed text is that of
    a mined list, the query's own here. They drop the positive seeds from the list, here those of both kinds.

    Args:
        k: entities kept at most, or as many as a query wants.
        sentences: read of a candidate; none: all.
        whole: candidates, the first by what was read, of which all sentences are read then.
        seed_sentences: read of a seed; none: all.
        estimated: estimate the mean over all of an entity's sentences from those that are read.
        everything: read every entity, whatever was recalled.
    """

    k: int = Field(default=200, ge=1)
    sentences: int | None = Field(default=2, ge=1)
    whole: int = Field(default=40, ge=0)
    seed_sentences: int | None = Field(default=None, ge=1)
    estimated: bool = True
    everything: bool = False

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "sentences": (1, MOST_SENTENCES),
        "whole": (0, 300),
    }
    unit: ClassVar[str] = "sentences"
    budget: ClassVar[int] = 4_000

    def cost(self, expansion: Expansion) -> int:
        """Return the sentences that are read at most; of everything, those of the candidates before."""
        n = len(expansion.ranking)
        whole = len(expansion.query.seeds) + min(self.whole, n)
        return whole * MOST_SENTENCES + (n - min(self.whole, n)) * (self.sentences or MOST_SENTENCES)

    def needs(self) -> tuple[str, ...]:
        """Name the folder with the encoder and the sentences."""
        return (CONTRAST,)

    def open(self, bundle: Bundle) -> Worker:
        """Load the encoder, and map the sentences.

        Raises:
            BundleError: the bundle was built without a contrastive training.
        """
        from engine.stages.conditioned_encoder import ConditionedEncoder

        encoder = bundle.once(
            CONTRAST,
            lambda folder: ConditionedEncoder.read(folder, bundle.vocabulary.names, max_length(bundle)),
        )
        return ConditionedRetriever(self, encoder, matching_of(bundle))


class ConditionedRetriever:
    """The worker of :class:`ConditionedRetrieve`."""

    def __init__(self, stage: ConditionedRetrieve, encoder: ConditionedEncoder, matching: Matching) -> None:
        self._stage, self._encoder, self._matching = stage, encoder, matching
        self._encoded = self._repeated = 0

    def __call__(self, expansions: list[Expansion]) -> list[Expansion]:
        """Return each expansion ranked anew."""
        return by_settings(self._stage, expansions, lambda own, some: [self._rank(own, e) for e in some])

    def counts(self) -> Mapping[str, int]:
        """Return how many sentences were read, and how many queries were answered from memory."""
        return {"sentences": self._encoded, "repeated": self._repeated}

    def _rank(self, stage: ConditionedRetrieve, expansion: Expansion) -> Expansion:
        from engine.stages.conditioned_encoder import Asked, Late

        query = expansion.query
        others = self._candidates(stage, expansion)
        if not len(others):
            return replace(expansion, ranking=Ranking.empty())
        asked = Asked(stage.sentences, stage.whole, stage.seed_sentences, stage.estimated)
        try:
            found = self._encoder.vectors(query, others, asked)
        except Late:
            return without(expansion, stage.name, "the deadline came before the sentences were read")
        self._encoded += found.encoded
        self._repeated += not found.encoded
        kinds = {"positive": query.positive, "negative": query.negative}
        split = np.split(found.seeds_SD, [len(query.positive)])
        notes = [
            unused(stage.name, query, kind, seeds, own)
            for (kind, seeds), own in zip(kinds.items(), split, strict=True)
        ]
        ranking = _ranked(expansion.ranking, others, found.others_nD, *split)
        return replace(
            expansion,
            ranking=ranking.head(max(stage.k, query.wanted)),
            degraded=expansion.degraded + notes[0] + notes[1],
        )

    def _candidates(self, stage: ConditionedRetrieve, expansion: Expansion) -> Ids:
        """Return the entities that are read, ascending: of those recalled, or of all, and never a seed."""
        if stage.everything:
            every = allowed(replace(expansion, ranking=Ranking.empty()), True, self._matching)
            ids = np.arange(len(self._encoder.sentences), dtype=np.int32) if every is None else every
        else:
            ids = np.sort(expansion.ranking.ids)
        present = ids[self._encoder.sentences.counts(ids) > 0]
        return present[~np.isin(present, expansion.query.kept_out)]


def _ranked(
    given: Ranking, ids: Ids, vectors_nD: Vectors, positive_PD: Vectors, negative_MD: Vectors
) -> Ranking:
    """Return entities by mean cosine to the positive seeds, with their evidence."""
    means = np.stack([mean_of(positive_PD), mean_of(negative_MD)])
    # As an index computes them: in float64, entity by entity.
    (products_n2,) = VectorIndex(vectors_nD).similarities([(np.arange(len(ids), dtype=np.int32), means)])
    positive, negative = np.ascontiguousarray(products_n2.T)
    known = bool(len(given)) and bool(np.isin(ids, given.ids).all())
    evidence = evidence_of(given, ids) if known else {}
    if known:
        by_id = np.argsort(given.ids)
        evidence["recall"] = given.scores[by_id][np.searchsorted(given.ids, ids, sorter=by_id)]
    evidence["positive"] = positive
    if negative_MD.any():
        evidence["negative"] = negative
    return Ranking(ids, positive, evidence).take(np.lexsort((ids, -positive)))
