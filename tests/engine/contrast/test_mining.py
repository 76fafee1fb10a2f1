"""Mining of queries: both sides, what neither list may hold, and queries that cannot be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest

from engine.chat.settings import ChatError
from engine.contrast.judges import Kept, Side
from engine.contrast.mining import mine
from engine.errors import QueryError
from engine.query import Expansion, Query, Ranking

QUERY = Query("q", (0, 1), (2,), class_name="its class", positive_attributes=(("a", ("b",)),))


@dataclass
class Listed:
    """A method that ranks, for the first positive seed, what it is told; notes what it is asked."""

    lists: dict[int, list[int]]
    asked: list[Query] = field(default_factory=list)

    def __call__(self, queries: Sequence[Query]) -> list[Expansion]:
        self.asked += queries
        found = []
        for query in queries:
            ids = np.array(self.lists[query.positive[0]], np.int32)
            found.append(Expansion(query, Ranking(ids, -np.arange(len(ids), dtype=np.float32))))
        return found


@dataclass
class Fixed:
    """A judge that keeps, for the first seed of a side, what it is told; or raises that."""

    kept: dict[int, set[int] | Exception]
    sides: list[Side] = field(default_factory=list)
    threads: int = 1

    def keep(self, side: Side) -> Kept:
        self.sides.append(side)
        kept = self.kept[side.seeds[0]]
        if isinstance(kept, Exception):
            raise kept
        return np.isin(side.candidates, list(kept))

    def account(self) -> str:
        return ""


def test_the_best_of_either_side_that_agree_are_the_lists_with_the_seeds() -> None:
    expand = Listed({0: [9, 2, 8, 7, 6, 5], 2: [4, 7, 0, 3, 10]})
    judge = Fixed({0: {8, 7, 2}, 2: {7, 3, 0}})
    (found,) = mine([QUERY], expand, judge, top=3, recall=50)
    assert [(q.positive, q.negative, q.top_k) for q in expand.asked] == [
        ((0, 1), (2,), 50),
        ((2,), (0, 1), 50),
    ]
    assert {(q.class_name, q.positive_attributes) for q in expand.asked} == {("", ())}, "its seeds alone"
    own, other = judge.sides
    assert (own.seeds, own.others, own.candidates.tolist()) == ((0, 1), (2,), [9, 8, 7])
    assert (other.seeds, other.others, other.candidates.tolist()) == ((2,), (0, 1), [4, 7, 3])
    lists = found.lists
    assert (lists.query_id, lists.positive.tolist(), lists.negative.tolist()) == ("q", [0, 1], [2])
    assert lists.pos_list.tolist() == [0, 1, 8], "7 is kept by both sides and goes to neither"
    assert lists.neg_list.tolist() == [2, 3]
    assert lists.recalled.tolist() == [9, 2, 8, 7, 6, 5, 4, 0, 3, 10]
    assert (found.judged, found.kept, found.both, found.empty, found.problem) == (6, 2, 1, (), "")


def test_a_query_without_negative_seeds_has_one_side() -> None:
    expand = Listed({0: [9, 8]})
    (found,) = mine([Query("q", (0,))], expand, Fixed({0: {9}}))
    assert len(expand.asked) == 1
    assert found.lists.pos_list.tolist() == [0, 9]
    assert found.lists.neg_list.tolist() == []
    assert found.empty == ("negative",)


def test_a_query_that_cannot_be_judged_has_seeds_alone_and_costs_no_other_its_lists() -> None:
    queries = [Query("a", (0,), (2,)), Query("b", (1,), (3,)), Query("c", (4,), (5,))]
    expand = Listed({0: [9], 2: [8], 1: [7], 3: [6], 4: [], 5: []})
    judge = Fixed({0: {9}, 2: QueryError("declined"), 1: {7}, 3: set()}, threads=2)
    a, b, c = mine(queries, expand, judge)
    assert (a.lists.pos_list.tolist(), a.lists.neg_list.tolist()) == ([0], [2])
    assert (a.problem, a.empty, a.kept, a.judged) == ("declined", ("positive", "negative"), 0, 2)
    assert (b.lists.pos_list.tolist(), b.empty, b.problem) == ([1, 7], ("negative",), "")
    assert (c.problem, c.judged) == ("nothing is recalled", 0)
    assert c.lists.recalled.dtype == np.int32


def test_a_judge_that_cannot_be_asked_ends_the_mining() -> None:
    judge = Fixed({0: ChatError("no endpoint")})
    with pytest.raises(ChatError, match="no endpoint"):
        list(mine([QUERY], Listed({0: [9], 2: [8]}), judge))
