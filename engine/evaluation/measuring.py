"""Run queries through a method and measure each: the part of an evaluation that goes query by query.

What is measured beyond the papers' columns is decided by :class:`Measures`. Answers are handed on one by one,
so that an evaluation needs no more memory than a batch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.evaluation.metrics import CUTOFFS, Protocol, fine_columns, first_hits, measure, recall_columns
from engine.queries.formats import LabelledQuery, RefusedQuery
from engine.query import Expansion, Ids, Query, Ranking
from engine.refusals import Code, Refusal
from engine.stages.base import LocalPipeline, Worker

Runner = Callable[[Sequence[Query]], list[Expansion]]

TAIL_EDGES = (1, 2, 5, 10, 20, 50)
"""Numbers of sentences at which the groups of entities begin; those below the first have none at all."""


class QueryScore(NamedTuple):
    """One measured query.

    Attributes:
        query: as it was read.
        ranking: what was measured.
        columns: in percent, see :mod:`engine.evaluation.metrics`.
        tail: true entities by number of sentences (a group for each edge, and one before), and how many of
            each group stand among the first 100, int64 [2, groups]; None: the sentences are not known.
        seconds: of all stages; None: not known.
        degraded: what was left out.
        counts: what the stages counted of the answer.
    """

    query: LabelledQuery
    ranking: Ranking
    columns: dict[str, float]
    tail: npt.NDArray[np.int64] | None
    seconds: float | None
    degraded: tuple[str, ...]
    counts: Mapping[str, int]


class FirstStage:
    """Note what the first stage of a pipeline recalls, for Recall@K."""

    def __init__(self) -> None:
        self._recalled: dict[str, Ids] = {}

    def noting(self, run: LocalPipeline) -> LocalPipeline:
        """Return the same pipeline, whose first stage tells what it returned."""
        (stage, worker), *rest = run.opened
        return LocalPipeline([(stage, self._worker(worker)), *rest])

    def _worker(self, worker: Worker) -> Worker:
        def run(expansions: list[Expansion]) -> list[Expansion]:
            done = worker(expansions)
            self._recalled.update((e.query.id, e.ranking.ids) for e in done)
            return done

        return run

    def take(self, query_id: str) -> Ids:
        """Return what was recalled for a query, once; nothing where the stage refused it."""
        return self._recalled.pop(query_id, np.empty(0, np.int32))


@dataclass(frozen=True)
class Measures:
    """What is measured, and of which questions.

    Args:
        protocol: what counts as truth.
        negative_seeds: use no more than that many negative seeds of a query. Those left out are taken off the
            answers, as the method may not know that they are seeds; None: use all.
        classes: the entities of each fine-grained class; of classes that are not among them no Fine columns
            are made of any query.
        sentences: how many sentences an entity has, int64 [N].
        recalled: notes of the recall stage.
    """

    protocol: Protocol = "seedset"
    negative_seeds: int | None = None
    classes: Mapping[str, frozenset[int]] = field(default_factory=dict)
    sentences: npt.NDArray[np.int64] | None = None
    recalled: FirstStage | None = None

    def asked(self, labelled: LabelledQuery) -> Query:
        """Return the question, for at least as many entities as the longest metric looks at."""
        query = labelled.query
        left_out = len(self.left_out(query))
        top_k = max(query.top_k, CUTOFFS[-1]) + left_out
        return replace(query, negative=query.negative[: self.negative_seeds], top_k=top_k)

    def left_out(self, query: Query) -> tuple[int, ...]:
        """Return the negative seeds that are not used."""
        return () if self.negative_seeds is None else query.negative[self.negative_seeds :]

    def score(self, labelled: LabelledQuery, expansion: Expansion) -> QueryScore:
        """Measure one answer."""
        query = labelled.query
        ranking = expansion.ranking
        recalled = self.recalled.take(query.id) if self.recalled else None
        if left_out := self.left_out(query):
            ranking = ranking.take(np.flatnonzero(~np.isin(ranking.ids, left_out)))
            recalled = None if recalled is None else recalled[~np.isin(recalled, left_out)]
        sides = labelled.positive, labelled.negative
        columns = measure(ranking.ids, *sides, self.protocol, query.positive)
        members = self.classes.get(labelled.label, frozenset()) - set(query.seeds)
        if self.classes:
            columns |= fine_columns(ranking.ids, members)
        if recalled is not None:
            columns |= recall_columns(recalled, labelled.positive)
            if self.classes:
                columns |= fine_columns(recalled, members, "RecallFine")
        seconds = sum(expansion.seconds.values()) if expansion.seconds else None
        tail = self._tail(ranking.ids, labelled.positive.ids)
        notes = expansion.degraded, expansion.counts
        return QueryScore(labelled, ranking, columns, tail, seconds, *notes)

    def _tail(self, ranked: Ids, truth: frozenset[int]) -> npt.NDArray[np.int64] | None:
        if self.sentences is None:
            return None
        groups = len(TAIL_EDGES) + 1
        first = ranked[: CUTOFFS[-1]]
        found = first[first_hits(first, truth)]
        kinds = [np.fromiter(truth, np.int64, len(truth)), found.astype(np.int64)]
        of = [np.searchsorted(TAIL_EDGES, self.sentences[ids], side="right") for ids in kinds]
        return np.stack([np.bincount(one, minlength=groups) for one in of])


def tail_labels() -> list[str]:
    """Return the names of the groups of entities by number of sentences: "0", "1", "2-4" … "50+"."""
    ends = [*TAIL_EDGES[1:], None]
    spans = [
        f"{a}+" if b is None else str(a) if b == a + 1 else f"{a}-{b - 1}"
        for a, b in zip(TAIL_EDGES, ends, strict=True)
    ]
    return ["0", *spans]


def by_truth(queries: Sequence[LabelledQuery]) -> tuple[list[LabelledQuery], list[RefusedQuery]]:
    """Return the queries that can be measured, and the refusals of those without positive truth."""
    no_truth = Refusal(Code.NO_TRUTH, "no positive truth (pos_gt), so it cannot be measured")
    usable = [q for q in queries if q.positive.size]
    return usable, [RefusedQuery(q.label, 0, q.query.id, no_truth) for q in queries if not q.positive.size]


def scores(
    runner: Runner, batches: Iterable[Sequence[LabelledQuery]], measures: Measures
) -> Iterator[list[QueryScore]]:
    """Yield the measured queries of each batch."""
    for batch in batches:
        expansions = runner([measures.asked(labelled) for labelled in batch])
        yield [measures.score(q, e) for q, e in zip(batch, expansions, strict=True)]


def in_order(queries: Sequence[LabelledQuery], batch_size: int) -> list[Sequence[LabelledQuery]]:
    """Return the queries in batches of a size."""
    return [queries[start : start + batch_size] for start in range(0, len(queries), batch_size)]


def across_classes(queries: Sequence[LabelledQuery]) -> list[Sequence[LabelledQuery]]:
    """Return the first query of every class, then the second of every class that has one, and so on."""
    counts: Counter[str] = Counter()
    batches: list[list[LabelledQuery]] = []
    for labelled in queries:
        place = counts[labelled.label]
        counts[labelled.label] += 1
        if place == len(batches):
            batches.append([])
        batches[place].append(labelled)
    return [*batches]


def classes_of(queries: Sequence[LabelledQuery]) -> dict[str, frozenset[int]]:
    """Return the entities of each fine-grained class, as far as its queries name them.

    Those are the truth of both sides and the seeds of all queries of the class: where its queries cover all
    values of an attribute, all of the class.
    """
    found: dict[str, set[int]] = {}
    for q in queries:
        found.setdefault(q.label, set()).update(q.positive.ids, q.negative.ids, q.query.seeds)
    return {label: frozenset(ids) for label, ids in found.items()}
