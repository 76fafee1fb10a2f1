"""Mine L_pos and L_neg of queries, which ultra-fine contrastive learning is trained on.

RetExpan, section 5.1.2 and appendix A: expand a query from its positive seeds, and again from its negative
seeds taken as positive; of the best T of either list L_0 those that a judge finds to agree with the seeds
are L_pos and L_neg, together with the seeds. The paper says nothing of an entity that is kept on both sides:
here it goes to neither, for the training would pull it away from itself. Nothing is read of a query but its
seeds: neither its truth nor its class or attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from engine.contrast.judges import Judge, Side
from engine.errors import QueryError
from engine.query import Expansion, Ids, Query
from engine.training.contrast_lists import ContrastLists

Expand = Callable[[Sequence[Query]], list[Expansion]]


@dataclass(frozen=True)
class Mined:
    """The lists of a query, and how they came about.

    Args:
        lists: what is trained on.
        judged: entities that were judged, of both sides.
        kept: those that agreed with their side's seeds and are in a list.
        both: entities that both sides kept, and so neither list has.
        problem: why the lists hold seeds alone, where they were not judged; else "".
    """

    lists: ContrastLists
    judged: int
    kept: int
    both: int
    problem: str = ""

    @property
    def empty(self) -> tuple[str, ...]:
        """The sides whose list holds seeds alone, or nothing: "positive", "negative"."""
        lists = self.lists
        sides = ("positive", lists.pos_list, lists.positive), ("negative", lists.neg_list, lists.negative)
        return tuple(name for name, found, seeds in sides if len(found) == len(seeds))


def mine(
    queries: Sequence[Query], expand: Expand, judge: Judge, top: int = 10, recall: int = 200
) -> Iterator[Mined]:
    """Yield the lists of each query, in order.

    Args:
        queries: of the vocabulary's entities.
        expand: an opened method.
        judge: keeps what agrees with the seeds.
        top: T, the entities of either list that are judged at most.
        recall: the length of either list.

    Raises:
        UserError: the judge cannot be asked at all. A query that it cannot judge gets lists of seeds alone.
    """
    asked = [one for query in queries for one in _asked(query, recall)]
    answers = iter(expand(asked))
    recalled: list[list[Ids]] = []
    problems: list[str] = []
    for query in queries:
        own = [next(answers) for _ in _asked(query, recall)]
        recalled.append([one.ranking.ids for one in own])
        problems.append("" if any(len(one.ranking) for one in own) else _why_nothing(own))
    pool = ThreadPoolExecutor(judge.threads, thread_name_prefix="judge")
    try:
        yield from pool.map(_mined, queries, recalled, repeat(judge), repeat(top), problems)
    finally:
        pool.shutdown(cancel_futures=True)


def _asked(query: Query, recall: int) -> Iterator[Query]:
    """Yield what is expanded: the query from either side's seeds, by its seeds alone."""
    yield Query(query.id, query.positive, query.negative, recall)
    if query.negative:
        yield Query(query.id, query.negative, query.positive, recall)


def _why_nothing(answers: Sequence[Expansion]) -> str:
    return "; ".join(dict.fromkeys(note for one in answers for note in one.degraded)) or "nothing is recalled"


def _mined(query: Query, recalled: Sequence[Ids], judge: Judge, top: int, problem: str) -> Mined:
    """Judge what was recalled of a query, and return its lists."""
    seeds = (query.positive, query.negative)
    best = [ids[~np.isin(ids, query.seeds)][:top] for ids in recalled]
    sides = [Side(seeds[i], seeds[1 - i], ids) for i, ids in enumerate(best)]
    kept = [np.empty(0, np.int32)] * 2
    if not problem:
        try:
            for i, side in enumerate(sides):
                if len(side.candidates):
                    kept[i] = side.candidates[judge.keep(side)]
        except QueryError as error:
            kept, problem = [np.empty(0, np.int32)] * 2, str(error)
    both = np.intersect1d(kept[0], kept[1])
    kept = [ids[~np.isin(ids, both)] for ids in kept]
    lists = ContrastLists(
        query.id,
        positive=np.array(query.positive, np.int32),
        negative=np.array(query.negative, np.int32),
        pos_list=np.array([*query.positive, *kept[0].tolist()], np.int32),
        neg_list=np.array([*query.negative, *kept[1].tolist()], np.int32),
        recalled=np.array(list(dict.fromkeys(np.concatenate(recalled).tolist())), np.int32),
    )
    judged, n_kept = (sum(len(ids) for ids in some) for some in (best, kept))
    return Mined(lists, judged, n_kept, len(both), problem)
