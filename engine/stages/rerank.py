"""Re-ranking by the negative seeds, segment by segment (RetExpan, section 5.1 and appendix K).

Inside a segment the entity least like the negative seeds comes first. (The paper's text says
"descending"; its program and its purpose say ascending.) Across segments nothing moves, so a noisy
candidate, unlike every seed, is not carried to the top.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.bundle import Bundle
from engine.query import Expansion, Ranking, Scores
from engine.retrieval.index import VectorIndex
from engine.stages.base import Stage, Worker


class EmbeddingRerank(Stage):
    """What the re-rankings share: the view that they read, one ranking at a time."""

    view: str

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = bundle.once(f"index/{self.view}.faiss", VectorIndex.read)

        def run(expansions: list[Expansion]) -> list[Expansion]:
            return [replace(e, ranking=self.rerank(e, index)) for e in expansions]

        return run

    @abstractmethod
    def rerank(self, expansion: Expansion, index: VectorIndex) -> Ranking:
        """Return the expansion's ranking in its new order."""


class SegmentRerank(EmbeddingRerank):
    """Order each segment of the list by rising mean cosine to the negative seeds.

    Segments have ``length`` entries each, or, where ``confidence`` is given, the share ``confidence``
    of the positive similarity that remains (CDS). Scores stay with their places, so that the list is
    still sorted by score; an entity's own similarities are in the evidence.
    """

    by: Literal["embedding"] = "embedding"
    view: str = "mask"
    length: int = Field(default=4, ge=1)
    confidence: float | None = Field(default=None, gt=0, lt=1)

    def rerank(self, expansion: Expansion, index: VectorIndex) -> Ranking:
        """Order each segment by rising similarity to the negative seeds."""
        ranking, negative_seeds = expansion.ranking, expansion.query.negative
        segment = self._segments(ranking.scores)
        if not negative_seeds:
            return ranking.with_evidence(segment=segment.astype(np.float32))
        negative = index.similarity(ranking.ids, index.mean_of(negative_seeds))
        order = np.lexsort((negative, segment))
        columns = {"negative": negative, "segment": segment.astype(np.float32)}
        reordered = ranking.with_evidence(**columns).take(order)
        return replace(reordered, scores=ranking.scores)

    def _segments(self, scores: Scores) -> npt.NDArray[np.int64]:
        if self.confidence is None:
            return equal_segments(len(scores), self.length)
        return confidence_segments(scores, self.confidence)


class ContrastRerank(EmbeddingRerank):
    """Take off the score of each entity what it owes to being like the negative seeds.

    With s+ and s- the mean cosines to the seeds of both kinds and T the temperature,

        score := score + T * log(sigmoid((s+ - s-) / T))

    Nothing is taken off an entity that is clearly nearer to the positive seeds; one that is nearer to
    the negative seeds loses the difference. Unlike a constant share of s-, this leaves an entity alone
    that is merely of the same fine-grained class as the negative seeds.
    """

    view: str = "joint"
    temperature: float = Field(default=0.05, gt=0)

    def rerank(self, expansion: Expansion, index: VectorIndex) -> Ranking:
        """Take the loss off each score and order by what remains."""
        ranking, query = expansion.ranking, expansion.query
        if not query.negative:
            return ranking
        positive = index.similarity(ranking.ids, index.mean_of(query.positive)).astype(np.float64)
        negative = index.similarity(ranking.ids, index.mean_of(query.negative))
        loss = self.temperature * np.logaddexp(0, (negative - positive) / self.temperature)
        scores = (ranking.scores - loss).astype(np.float32)
        order = np.lexsort((ranking.ids, -scores))
        return replace(ranking.with_evidence(negative=negative), scores=scores).take(order)


def equal_segments(n: int, length: int) -> npt.NDArray[np.int64]:
    """Return the segment number of each of n places: 0 ``length`` times, then 1, …"""
    return np.arange(n) // length


def confidence_segments(scores: Scores, confidence: float) -> npt.NDArray[np.int64]:
    """Return the segment number of each place, by confidence (algorithm 1, appendix K).

    From the first place not yet taken, scores are normalised over the rest of the list, and the
    segment is the shortest run whose sum exceeds ``confidence``. The algorithm's last line goes on
    at j + 1, which would leave out the entry at j; we go on at j. Scores below zero count as zero.

    Args:
        scores: positive similarities, best first, float32 [n].
        confidence: the threshold p, between 0 and 1.
    """
    n = len(scores)
    mass = np.concatenate([[0.0], np.cumsum(np.maximum(scores.astype(np.float64), 0))])
    segment = np.zeros(n, np.int64)
    start = number = 0
    while start < n:
        rest = mass[n] - mass[start]
        end = int(np.searchsorted(mass, mass[start] + confidence * rest, side="right"))
        end = min(max(end, start + 1), n) if rest > 0 else n
        segment[start:end] = number
        start, number = end, number + 1
    return segment
