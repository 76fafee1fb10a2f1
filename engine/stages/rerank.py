"""Re-rank by the negative seeds, segment by segment (sections 5.1 and 5.2, appendix K).

Inside a segment the entity least like the negative seeds comes first. (The paper's text says
"descending"; its program and its purpose say ascending.) Across segments nothing moves, so a noisy
candidate, unlike every seed, is not carried to the top.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.generation.files import LM_FILES
from engine.query import Expansion, Query, Ranking, Scores, Weights
from engine.retrieval.index import Means, Vectors, index_file, mean_of, seed_vectors
from engine.retrieval.opening import open_index
from engine.retrieval.view_weights import open_view_weights
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, by_settings
from engine.stages.retrieve import unused
from engine.storage.bundle import Bundle

Nearness = Callable[[Sequence[Expansion]], list[tuple[Scores, tuple[str, ...]]]]
"""Returns for each expansion its entities' mean similarity to the negative seeds, float32 [n], and notes."""


def by_embedding(bundle: Bundle, view: str, stage: str) -> Nearness:
    """Return the mean cosine to the negative seeds in a view; notes, in a stage's name, on unused seeds."""
    index = open_index(bundle, view)

    def near(expansions: Sequence[Expansion]) -> list[tuple[Scores, tuple[str, ...]]]:
        seeds = seed_vectors(index, view, [(e.query, e.query.negative) for e in expansions])
        asked = [
            (e.ranking.ids, mean_of(own, e.query.weights_of(e.query.negative))[None])
            for e, own in zip(expansions, seeds, strict=True)
        ]
        return [
            (products[:, 0], unused(stage, e.query, "negative", e.query.negative, own))
            for e, own, products in zip(expansions, seeds, index.similarities(asked), strict=True)
        ]

    return near


def by_likelihood(bundle: Bundle) -> Nearness:
    """Return the language model's mean likelihood of the negative seeds (equation 8, for negative seeds)."""
    from engine.generation.artifacts import open_artifacts
    from engine.generation.seeds import targets

    means = open_artifacts(bundle).likelihood.means
    return lambda expansions: [
        (scores, ())
        for scores in means([(e.ranking.ids, targets(e.query, e.query.negative)) for e in expansions])
    ]


def by_evidence(otherwise: Nearness) -> Nearness:
    """Return what a stage before noted as the evidence ``negative``, and ``otherwise`` where none did."""

    def near(expansions: Sequence[Expansion]) -> list[tuple[Scores, tuple[str, ...]]]:
        others = iter(otherwise([e for e in expansions if "negative" not in e.ranking.evidence]))
        noted = [e.ranking.evidence.get("negative") for e in expansions]
        return [next(others) if column is None else (column, ()) for column in noted]

    return near


class SegmentRerank(Stage):
    """Order each segment of the list by ascending mean similarity to the negative seeds.

    Similarity is the cosine in a view (``by="embedding"``, RetExpan), the likelihood of the seeds
    (``by="likelihood"``, GenExpan), or what a stage before noted as the evidence ``negative``
    (``by="evidence"``; the cosine in the view where it noted none, as after its deadline). Segments have
    ``length`` entries each, or, where ``confidence`` is given, the share ``confidence`` of the positive
    similarity that remains (CDS). Scores stay with their places, so that the list is still sorted by score;
    an entity's own similarities are in the evidence.
    """

    by: Literal["embedding", "likelihood", "evidence"] = "embedding"
    view: str = "mask"
    length: int = Field(default=4, ge=1)
    confidence: float | None = Field(default=None, gt=0, lt=1)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {"length": (1, 1_000), "confidence": (0, 1)}
    unit: ClassVar[str] = "candidates"
    budget: ClassVar[int] = 4_000  # a likelihood takes its time
    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES - {QueryFeature.CONTEXT}

    @property
    def supported(self) -> frozenset[QueryFeature]:
        """No weights where similarity is not that to a mean; a language model knows no added names."""
        unable: dict[str, set[QueryFeature]] = {
            "embedding": set(),
            "evidence": {QueryFeature.WEIGHTS},
            "likelihood": {QueryFeature.WEIGHTS, QueryFeature.OVERLAY},
        }
        return self.supports - unable[self.by]

    @property
    def seed_views(self) -> tuple[str, ...] | None:
        """The view in which seeds are read, if they are compared by vectors."""
        return (self.view,) if self.by == "embedding" else None

    def cost(self, expansion: Expansion) -> int:
        """Return how many candidates are compared with the negative seeds."""
        return max(1, len(expansion.ranking))

    def needs(self) -> tuple[str, ...]:
        """Name the view's index, or the language model and the trie."""
        return LM_FILES if self.by == "likelihood" else (index_file(self.view),)

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index, or load the language model."""
        near = (
            by_likelihood(bundle) if self.by == "likelihood" else by_embedding(bundle, self.view, self.name)
        )
        if self.by == "evidence":
            near = by_evidence(near)

        def run(own: SegmentRerank, expansions: list[Expansion]) -> list[Expansion]:
            found = iter(near([e for e in expansions if _has_both(e.query)]))
            done = []
            for e in expansions:
                negative, notes = next(found) if _has_both(e.query) else (None, ())
                done.append(replace(e, ranking=own._rerank(e.ranking, negative), degraded=e.degraded + notes))
            return done

        return lambda expansions: by_settings(self, expansions, run)

    def _rerank(self, ranking: Ranking, negative: Scores | None) -> Ranking:
        segment = self._segments(ranking.scores)
        if negative is None:
            return ranking.with_evidence(segment=segment.astype(np.float32))
        order = np.lexsort((negative, segment))
        columns = {"negative": negative, "segment": segment.astype(np.float32)}
        reordered = ranking.with_evidence(**columns).take(order)
        return replace(reordered, scores=ranking.scores)

    def _segments(self, scores: Scores) -> npt.NDArray[np.int64]:
        if self.confidence is None:
            return equal_segments(len(scores), self.length)
        return confidence_segments(scores, self.confidence)


class ContrastRerank(Stage):
    """Lower each entity's score by its excess similarity to the negative seeds.

    With s+ and s- the mean cosines to the seeds of both kinds and T the temperature,

        score := score + T * log(sigmoid((s+ - s-) / T))

    Nothing is subtracted from an entity that is clearly nearer to the positive seeds; one that is nearer to
    the negative seeds loses the difference. Unlike a constant share of s-, this leaves an entity alone
    that is merely of the same fine-grained class as the negative seeds.

    With a ``soft_minimum`` m, an entity that lies far from one of the P positive seeds falls behind one that
    is as near to them on average: before the above, with s_i the cosine to seed i,

        score := score - s+ - m * log(mean_i exp(-s_i / m))

    (means are by the weights of the seeds), which is the score without the lesser seeds' part where m is
    small, and the score as it is where m is large or the cosines are equal. What all positive seeds share
    then counts more than what two share. Queries without a positive seed pass as they are.

    With ``view_weights`` all of these cosines are weighted means of those in the views within the joint one,
    as in :class:`~engine.stages.retrieve.Retrieve`.
    """

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES - {QueryFeature.CONTEXT}

    view: str = "joint"
    temperature: float = Field(default=0.05, gt=0)
    soft_minimum: float | None = Field(default=None, gt=0)
    view_weights: float = Field(default=0, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "temperature": (0.001, 10),
        "soft_minimum": (0.01, 100),
    }

    @property
    def seed_views(self) -> tuple[str, ...]:
        """The view in which seeds are read."""
        return (self.view,)

    def needs(self) -> tuple[str, ...]:
        """Name the view's index."""
        return (index_file(self.view),)

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index = open_index(bundle, self.view)
        weights, why_not = open_view_weights(bundle, index, self.view, self.view_weights)
        note = (f"{self.name}: {why_not}",) if why_not else ()

        def run(own: ContrastRerank, expansions: list[Expansion]) -> list[Expansion]:
            given = [e for e in expansions if own._changes(e.query)]
            kinds = [(e.query, seeds) for e in given for seeds in (e.query.positive, e.query.negative)]
            seeds = seed_vectors(index, self.view, kinds)
            pairs = list(zip(given, seeds[::2], seeds[1::2], strict=True))
            asked = [
                (
                    e.ranking.ids,
                    own._compared(e.query, plus, minus) * (weights.factors(plus, minus) if weights else 1.0),
                )
                for e, plus, minus in pairs
            ]
            changed = iter(
                replace(
                    e,
                    ranking=own._rerank(e, products, _used_weights(e.query, plus)),
                    degraded=e.degraded
                    + note
                    + unused(self.name, e.query, "negative", e.query.negative, minus),
                )
                for (e, plus, minus), products in zip(pairs, index.similarities(asked), strict=True)
            )
            return [next(changed) if own._changes(e.query) else e for e in expansions]

        return lambda expansions: by_settings(self, expansions, run)

    def _changes(self, query: Query) -> bool:
        return bool(query.positive) and (bool(query.negative) or self.soft_minimum is not None)

    def _compared(self, query: Query, plus_PD: Vectors, minus_MD: Vectors) -> Means:
        """Return what entities are compared with: both kinds' means, and each positive seed if it counts."""
        used = plus_PD[plus_PD.any(axis=1)] if self.soft_minimum else plus_PD[:0]
        plus_D = mean_of(plus_PD, query.weights_of(query.positive))
        minus_D = mean_of(minus_MD, query.weights_of(query.negative))
        return np.concatenate([plus_D[None], minus_D[None], used.astype(np.float64)])

    def _rerank(self, expansion: Expansion, products_NM: Scores, weights_P: Weights | None) -> Ranking:
        ranking, has_negative = expansion.ranking, bool(expansion.query.negative)
        positive, negative, *each = products_NM.astype(np.float64).T
        scores, columns = ranking.scores.astype(np.float64), {}
        if self.soft_minimum and each:
            agreement = soft_minimum(np.stack(each), self.soft_minimum, weights_P)
            scores += agreement - positive
            columns["agreement"] = agreement.astype(np.float32)
        if has_negative:
            scores -= self.temperature * np.logaddexp(0, (negative - positive) / self.temperature)
            columns["negative"] = negative.astype(np.float32)
        rounded = scores.astype(np.float32)
        order = np.lexsort((ranking.ids, -rounded))
        return replace(ranking.with_evidence(**columns), scores=rounded).take(order)


def _has_both(query: Query) -> bool:
    """Return whether a query has negative seeds beside positive ones: alone they have made the order."""
    return bool(query.positive and query.negative)


def soft_minimum(
    values_PN: npt.NDArray[np.float64], temperature: float, weights_P: Weights | None = None
) -> npt.NDArray[np.float64]:
    """Return -T log(mean exp(-v / T)) over the first axis: between the least value and the mean.

    Args:
        values_PN: the values.
        temperature: T; the least value counts alone where it is small.
        weights_P: of the mean; None: all alike.
    """
    scaled_PN = -values_PN / temperature
    if weights_P is None:
        return -temperature * (np.logaddexp.reduce(scaled_PN, axis=0) - np.log(len(values_PN)))
    scaled_PN = scaled_PN + np.log(weights_P / weights_P.sum())[:, None]
    return -temperature * np.logaddexp.reduce(scaled_PN, axis=0)


def _used_weights(query: Query, plus_PD: Vectors) -> Weights | None:
    """Return the weights of the positive seeds that have a vector; None where all weigh the same."""
    weights_P = query.weights_of(query.positive)
    return None if weights_P is None else weights_P[plus_PD.any(axis=1)]


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
