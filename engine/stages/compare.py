"""Rank by what each seed says, combined by a rule, and by context pairs ("this rather than that"). Ours.

The three rules are what vector databases call recommendation strategies, and pairs what they call context and
discovery; the formulas are this project's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from engine.query import Expansion, Ids, Query, Ranking, Weights
from engine.retrieval.index import Index, Means, Vectors, index_file, mean_of, seed_vectors
from engine.retrieval.opening import open_index
from engine.stages.base import ALL_FEATURES, QueryFeature, Stage, Worker, by_settings
from engine.stages.retrieve import MADE_OF, Matching, allowed, evidence_of, matching_of, unused
from engine.storage.bundle import Bundle

Rule = Literal["mean", "best", "sum"]
Floats = npt.NDArray[np.float64]


class Compare(Stage):
    """Score entities by their cosines to single seeds, and by context pairs.

    With c(e, x) the cosine of an entity and a seed in ``view``, w the weights of seeds over the largest of
    their kind (1 each if none were given), and T the ``temperature``, a kind S of seeds says, by ``rule``,

        mean    R(S) = sum over s in S of w_s c(e, s) / sum of w_s
        best    R(S) = max over s in S of c(e, s) + T ln w_s
        sum     R(S) = sum over s in S of w_s sigmoid(c(e, s) / T)

    and 0 where there are none. With C the context pairs (this, that) and T' the ``context_temperature``,

        score = R(positive) - R(negative)
                + context_weight * sum over C of T' ln sigmoid((c(e, this) - c(e, that)) / T')

    so each pair takes nothing off an entity that is clearly nearer to its first, and the difference off one
    that is nearer to its second. Pairs need no seeds, nor seeds pairs. Seeds and members of pairs are never
    returned; ties are by id. Those without a vector are left out, with a note, and their pairs.

    Scored are the ``k`` nearest to each single positive seed (``mean``: to none) and to the first of each
    pair, the k farthest in the direction from negative to positive means and from each pair's second to its
    first; without a positive seed or a pair the k farthest from the negative ones' mean. So ``mean``
    without pairs is exact, and ``best`` without negative seeds and pairs.
    """

    supports: ClassVar[frozenset[QueryFeature]] = ALL_FEATURES

    rule: Rule = "mean"
    view: str = "joint"
    k: int = Field(default=600, ge=1)
    temperature: float = Field(default=0.1, gt=0)
    context_temperature: float = Field(default=0.05, gt=0)
    context_weight: float = Field(default=1, ge=0)

    per_request: ClassVar[Mapping[str, tuple[float, float]]] = {
        "k": (1, 2_000),
        "temperature": (0.001, 10),
        "context_temperature": (0.001, 10),
        "context_weight": (0, 1_000),
    }
    unit: ClassVar[str] = "seeds"

    def cost(self, expansion: Expansion) -> int:
        """Return how many seeds and members of pairs entities are compared with."""
        return max(1, len(expansion.query.seeds) + 2 * len(expansion.query.context))

    @property
    def seed_views(self) -> tuple[str, ...]:
        """The view in which seeds are read."""
        return (self.view,)

    def needs(self) -> tuple[str, ...]:
        """Name the view's index."""
        return (index_file(self.view),)

    def open(self, bundle: Bundle) -> Worker:
        """Read the view's index."""
        index, matching = open_index(bundle, self.view), matching_of(bundle, overlaid=True)

        def run(own: Compare, expansions: list[Expansion]) -> list[Expansion]:
            given = own._given(index, [e.query for e in expansions])
            candidates = own._candidates(index, expansions, given, matching)
            asked = [(ids, one.vectors) for ids, one in zip(candidates, given, strict=True)]
            products = index.similarities(asked)
            return [
                own._ranked(e, one, ids, products_NM.astype(np.float64))
                for e, one, ids, products_NM in zip(expansions, given, candidates, products, strict=True)
            ]

        return lambda expansions: by_settings(self, expansions, run)

    def _given(self, index: Index, queries: Sequence[Query]) -> list[_Given]:
        """Return what each query gives to compare with: one call for all of them."""
        kinds = [
            (q, seeds)
            for q in queries
            for seeds in (q.positive, q.negative, [i for i, _ in q.context], [i for _, i in q.context])
        ]
        found = seed_vectors(index, self.view, kinds)
        lacks = MADE_OF.get(self.view, "sentence")
        given = []
        for place, q in enumerate(queries):
            plus_PD, minus_MD, this_CD, that_CD = found[4 * place : 4 * place + 4]
            both_C = this_CD.any(axis=1) & that_CD.any(axis=1)
            notes = unused(self.name, q, "positive", q.positive, plus_PD, lacks)
            notes += unused(self.name, q, "negative", q.negative, minus_MD, lacks)
            notes += tuple(
                f"{self.name}: context pair {pair} has an entity without a {lacks} and was not used"
                for pair in np.flatnonzero(~both_C).tolist()
            )
            sides = (_Side.of(q, q.positive, plus_PD), _Side.of(q, q.negative, minus_MD))
            given.append(_Given(*sides, this_CD[both_C], that_CD[both_C], notes))
        return given

    def _candidates(
        self, index: Index, expansions: Sequence[Expansion], given: Sequence[_Given], matching: Matching
    ) -> list[Ids]:
        """Return the entities of each query that are scored, ascending."""
        found: list[list[Ids]] = [[np.empty(0, np.int32)] for _ in expansions]
        # Codes are made for what is near; what is farthest is searched among all.
        for exact in (False, True):
            own = [i for i, one in enumerate(given) if one.is_away == exact]
            rows = [(i, row_D) for i in own for row_D in self._rows(given[i], expansions[i].query)]
            if not rows:
                continue
            results = index.search(
                np.stack([row_D for _, row_D in rows]),
                max(self._wanted(expansions[i].query) for i, _ in rows),
                [[j for j in expansions[i].query.kept_out if j >= 0] for i, _ in rows],
                [allowed(expansions[i], True, matching) for i, _ in rows],
                exact=exact,
            )
            for (i, _), one in zip(rows, results, strict=True):
                found[i].append(one.ids[: self._wanted(expansions[i].query)])
        return [np.unique(np.concatenate(parts)).astype(np.int32) for parts in found]

    def _wanted(self, query: Query) -> int:
        return max(self.k, query.wanted)

    def _rows(self, given: _Given, query: Query) -> list[Means]:
        """Return the vectors near which entities are looked for; none where no seed is of use."""
        plus, minus = given.plus, given.minus
        if query.positive and not len(plus.vectors_SD):
            return []
        rows = [] if self.rule == "mean" else list(plus.vectors_SD.astype(np.float64))
        rows.append(mean_of(plus.vectors_SD, plus.weights_S) - mean_of(minus.vectors_SD, minus.weights_S))
        rows += [*given.this_CD.astype(np.float64), *(given.this_CD.astype(np.float64) - given.that_CD)]
        return [row_D for row_D in rows if row_D.any()]

    def _ranked(self, expansion: Expansion, given: _Given, ids: Ids, products_NM: Floats) -> Expansion:
        query = expansion.query
        ends = np.cumsum([len(given.plus.vectors_SD), len(given.minus.vectors_SD), len(given.this_CD)])
        plus_NP, minus_NM, this_NC, that_NC = np.split(products_NM, ends, axis=1)
        columns, scores_N = {}, np.zeros(len(ids))
        for name, sign, own_NS, side in (
            ("positive", 1, plus_NP, given.plus),
            ("negative", -1, minus_NM, given.minus),
        ):
            if own_NS.shape[1]:
                said_N = said(self.rule, own_NS, side.weights_S, self.temperature)
                scores_N += sign * said_N
                columns[name] = said_N.astype(np.float32)
        if this_NC.shape[1]:
            penalty_N = pair_penalty(this_NC - that_NC, self.context_temperature)
            scores_N += self.context_weight * penalty_N
            columns["context"] = penalty_N.astype(np.float32)
        rounded = scores_N.astype(np.float32)
        kept = evidence_of(expansion.ranking, ids)
        order = np.lexsort((ids, -rounded))
        ranking = Ranking(ids, rounded, {**kept, **columns}).take(order).head(self._wanted(query))
        return replace(expansion, ranking=ranking, degraded=expansion.degraded + given.notes)


@dataclass(frozen=True)
class _Side:
    """The seeds of a kind that have a vector: unit vectors [S, D], and weights if they differ."""

    vectors_SD: Vectors
    weights_S: Weights | None

    @classmethod
    def of(cls, query: Query, seeds: Sequence[int], vectors_SD: Vectors) -> _Side:
        """Return the seeds that have a vector."""
        present_S, weights_S = vectors_SD.any(axis=1), query.weights_of(seeds)
        return cls(vectors_SD[present_S], None if weights_S is None else weights_S[present_S])


@dataclass(frozen=True)
class _Given:
    """What a query gives to compare with: seeds of both kinds, pairs' members [C, D] each, and notes."""

    plus: _Side
    minus: _Side
    this_CD: Vectors
    that_CD: Vectors
    notes: tuple[str, ...]

    @property
    def is_away(self) -> bool:
        """Whether nothing says what is wanted, but what is not."""
        return not len(self.plus.vectors_SD) and not len(self.this_CD)

    @property
    def vectors(self) -> Means:
        """All of them, [P + M + 2C, D] float64."""
        parts = (self.plus.vectors_SD, self.minus.vectors_SD, self.this_CD, self.that_CD)
        return np.concatenate(parts).astype(np.float64)


def said(rule: Rule, cosines_NS: Floats, weights_S: Weights | None, temperature: float) -> Floats:
    """Return R of :class:`Compare` for each entity, [N].

    Args:
        rule: the rule.
        cosines_NS: of N entities to S seeds of a kind, one or more.
        weights_S: of the seeds; None: all alike.
        temperature: T.
    """
    shares_S = np.ones(cosines_NS.shape[1]) if weights_S is None else weights_S / weights_S.max()
    if rule == "best":
        return np.asarray((cosines_NS + temperature * np.log(shares_S)).max(axis=1), np.float64)
    if rule == "sum":
        return np.asarray((0.5 + 0.5 * np.tanh(cosines_NS / (2 * temperature))) @ shares_S, np.float64)
    return np.asarray(cosines_NS @ shares_S / shares_S.sum(), np.float64)


def pair_penalty(differences_NC: Floats, temperature: float) -> Floats:
    """Return the sum over pairs of T ln sigmoid(d / T), [N], of the cosines' differences [N, C]."""
    return np.asarray(-temperature * np.logaddexp(0, -differences_NC / temperature).sum(axis=1), np.float64)
