"""The rounds of GenExpan on a search and likelihoods that are written down here."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.generation.beam import BeamResult
from engine.generation.expansion import ExpansionState, Rules, run_rounds, select, top_p, within_p
from engine.generation.reasoning import Reasoning
from engine.generation.trie import Trie
from engine.query import Deadline, NewEntity, Query, Scores

N = 30
NAMES = [f"name{i}" for i in range(N)]


class Likelihood:
    """The likelihood of entity i is 1 / (i + 1) whatever the seeds are."""

    def means(self, requests: Sequence[tuple[Any, Any]]) -> list[np.ndarray]:
        return [(1 / (np.asarray(ids) + 1)).astype(np.float32) for ids, _ in requests]


class Model:
    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]


ARTIFACTS: Any = SimpleNamespace(
    model=Model(), names=NAMES, description=lambda i: f"about {NAMES[i]}", likelihood=Likelihood()
)


class Search:
    """Answers each prompt with the names that follow the last one listed; remembers the prompts."""

    def __init__(self, size: int = 4) -> None:
        self.size = size
        self.prompts: list[str] = []

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        tries: Sequence[Trie],
        lookahead: Sequence[Scores | None] = (),
    ) -> list[BeamResult]:
        texts = ["".join(map(chr, p)) for p in prompts]
        self.prompts += texts
        return [self._found(int(re.findall(r"name(\d+)", t)[-1])) for t in texts]

    def _found(self, last: int) -> BeamResult:
        ids = np.array([(last + 1 + i) % N for i in range(self.size)], np.int32)
        return BeamResult(ids, np.zeros(self.size, np.float32), np.zeros(self.size, np.float32))


def query(
    positive: Sequence[int] = (0, 1, 2), negative: Sequence[int] = (5,), seed: int = 0, wanted: int = 12
) -> ExpansionState:
    q = Query("q", tuple(positive), tuple(negative))
    trie: Any = None
    return ExpansionState(q, trie, Reasoning(), wanted, np.random.default_rng([seed, *positive]))


def grown(
    search: Search, growing: Sequence[ExpansionState], rules: Rules, query_batch_size: int = 8
) -> list[Any]:
    return list(run_rounds(ARTIFACTS, search, growing, rules, query_batch_size))


def test_top_p_keeps_the_entry_that_reaches_the_share() -> None:
    scores = np.array([1, 4, 2, 3], np.float32)
    assert top_p(scores, 0.4).tolist() == [1]
    assert top_p(scores, 0.7).tolist() == [1, 3]
    assert top_p(scores, 0.71).tolist() == [1, 3, 2]
    assert top_p(scores, 1).tolist() == [1, 3, 2, 0]
    assert top_p(np.empty(0, np.float32), 0.7).tolist() == []
    assert top_p(np.zeros(2, np.float32), 0.7).tolist() == [0, 1]


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=40), st.floats(0.01, 1))
def test_top_p_is_the_shortest_best_prefix_that_holds_the_share(values, p) -> None:
    scores = np.array(values, np.float32)
    kept = top_p(scores, p)
    assert len(kept) >= 1
    assert len(set(kept.tolist())) == len(kept)
    total = scores.astype(np.float64).sum()
    if total > 0:
        assert scores[kept].astype(np.float64).sum() >= p * total * (1 - 1e-6)
        assert scores[kept[:-1]].astype(np.float64).sum() < p * total


def authors_selection(generated: list[int], scores: list[float], p: float, seeds: Sequence[int]) -> list[int]:
    """Select a round's entities in the words of METHODS: a plain loop over the whole round."""
    total = sum(scores)
    best_first = sorted(range(len(generated)), key=lambda i: -scores[i])
    mass, kept = 0.0, []
    for i in best_first:
        mass += scores[i] / total
        if mass > p:
            break
        kept.append(generated[i])
    if not kept:
        kept = [generated[best_first[0]]]
    return [entity for entity in kept if entity not in seeds]


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.floats(0.05, 0.99))
def test_a_round_selects_what_the_authors_rule_does(seed: int, n: int, p: float) -> None:
    random = np.random.default_rng(seed)
    ids = random.permutation(60)[:n].astype(np.int32)
    scores = random.dirichlet(np.ones(n)).astype(np.float32)
    seeds = random.permutation(60)[:8].tolist()
    kept, likelihoods = select(ids, scores, seeds, Rules(top_p=p))
    expected = authors_selection(ids.tolist(), scores.astype(float).tolist(), p, seeds)
    assert kept.tolist() == expected
    assert likelihoods.tolist() == [scores[ids.tolist().index(i)] for i in kept.tolist()]


def test_the_entry_that_crosses_the_share_is_left_out_and_seeds_count() -> None:
    scores = np.array([0.1, 0.4, 0.2, 0.3], np.float32)
    assert within_p(scores, 0.4).tolist() == [1]
    assert within_p(scores, 0.69).tolist() == [1]
    assert within_p(scores, 0.71).tolist() == [1, 3]
    assert within_p(scores, 0.3).tolist() == [1], "the best one is kept even so"
    assert within_p(scores, 1).tolist() == [1, 3, 2, 0]
    assert within_p(np.empty(0, np.float32), 0.7).tolist() == []
    ids = np.array([10, 11, 12, 13], np.int32)
    assert select(ids, scores, [11], Rules(top_p=0.71))[0].tolist() == [13]
    ours = Rules(top_p=0.71, selection="seedset")
    assert select(ids, scores, [11], ours)[0].tolist() == [13, 12], "0.3 and 0.2 of 0.6"
    assert select(ids, scores, [11], Rules(top_p=0.5))[0].tolist() == []


def test_of_a_list_that_grew_too_long_the_first_stay() -> None:
    one = query()
    one.accept(np.array([7, 8, 9], np.int32), np.array([0.1, 0.5, 0.3], np.float32))
    assert one.ranked(2)[0].tolist() == [8, 7]
    assert one.ranked(2, "seedset")[0].tolist() == [8, 9]


def test_the_first_prompt_lists_three_seeds_later_ones_two_and_one_of_the_list() -> None:
    one = query(positive=(0, 1, 2, 3))
    first = one.draw()
    assert len(set(first)) == 3
    assert set(first) < {0, 1, 2, 3}
    one.accept(np.array([7, 8], np.int32), np.array([0.5, 0.2], np.float32))
    for _ in range(20):
        *seeds, listed = one.draw()
        assert len(set(seeds)) == 2
        assert set(seeds) < {0, 1, 2, 3}
        assert listed in (7, 8)


def test_what_was_generated_more_often_is_drawn_more_often() -> None:
    one = query()
    one.accepted, one.times = {7: 0.5, 8: 0.2}, Counter({7: 9, 8: 1})
    drawn = Counter(one.draw()[-1] for _ in range(1000))
    assert drawn[7] == pytest.approx(900, abs=40)


def test_two_positive_seeds_are_enough_for_a_prompt() -> None:
    assert sorted(query(positive=(4, 6)).draw()) == [4, 6]


def test_the_first_round_by_hand() -> None:
    search, one = Search(size=4), query()
    (first,) = grown(search, [one], Rules(top_p=0.7, max_rounds=1))
    words = search.prompts[0].split("\n")[-1].split()[:3]
    listed = [int(word.strip(",").removeprefix("name")) for word in words]
    assert sorted(listed) == [0, 1, 2]
    # Names after the last one listed, seeds 0, 1, 2 and 5 among them; likelihood 1 / (id + 1).
    candidates = list(range(listed[-1] + 1, listed[-1] + 5))
    kept = authors_selection(candidates, [1 / (i + 1) for i in candidates], 0.7, (0, 1, 2, 5))
    assert first.new.tolist() == kept
    ids, likelihoods, times = one.ranked(10)
    assert ids.tolist() == kept
    assert likelihoods.tolist() == pytest.approx([1 / (i + 1) for i in kept])
    assert times.tolist() == [1] * len(kept)


def test_a_list_ends_when_it_is_long_enough() -> None:
    rounds = grown(Search(), [query(wanted=6)], Rules(top_p=1))
    assert rounds[-1].ended
    assert rounds[-1].total >= 6
    assert all(r.total < 6 for r in rounds[:-1])


def test_a_list_ends_after_rounds_without_a_new_entity() -> None:
    class Same(Search):
        def _found(self, last: int) -> BeamResult:
            return super()._found(9)

    rounds = grown(Same(), [query()], Rules(patience=3, top_p=1))
    assert [len(r.new) for r in rounds] == [4, 0, 0, 0]
    assert rounds[-1].ended


def test_no_seed_is_ever_accepted() -> None:
    one = query(wanted=100)
    grown(Search(), [one], Rules(patience=5, top_p=1))
    assert not set(one.accepted) & {0, 1, 2, 5}
    assert len(one.accepted) >= 10


def test_the_same_seed_gives_the_same_list_whoever_is_beside_it() -> None:
    others = [query(positive=(10, 11, 12)), query(positive=(20, 21))]
    alone, beside, again = query(), query(), query()
    grown(Search(), [alone], Rules())
    grown(Search(), [*others, beside], Rules(), query_batch_size=2)
    grown(Search(), [again], Rules())
    assert alone.accepted == beside.accepted == again.accepted
    other = query(seed=1)
    grown(Search(), [other], Rules())
    assert other.times != alone.times


class Clock:
    """Tells a second more each time."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def timed(deadline: float | None, **options: Any) -> ExpansionState:
    one = query(**options)
    one.query = replace(one.query, deadline=None if deadline is None else Deadline(deadline))
    return one


def test_no_round_begins_that_would_end_after_the_deadline() -> None:
    late, one, never = timed(0.5), timed(4.0), timed(None, wanted=20)
    rounds = list(run_rounds(ARTIFACTS, Search(), [late, one, never], Rules(top_p=0.1), 8, Clock()))
    assert (late.rounds, late.stopped) == (0, True)
    # The clock says 1 and 2 before the rounds; one more, begun at 3, would end at 4.
    assert (one.rounds, one.stopped) == (2, True)
    assert never.rounds > 2
    assert not never.stopped
    assert len(rounds) == one.rounds + never.rounds
    plain = query()
    grown(Search(), [plain], Rules(top_p=0.1, max_rounds=2))
    assert one.accepted == plain.accepted, "what it has is what two rounds bring"


def test_queries_that_wait_longer_than_their_time_make_room_for_others() -> None:
    growing = [timed(100.0), timed(2.0), timed(2.5), timed(100.0, positive=(10, 11))]
    list(run_rounds(ARTIFACTS, Search(), growing, Rules(), 1, Clock()))
    assert [one.stopped for one in growing] == [False, True, True, False]
    assert [one.rounds > 0 for one in growing] == [True, False, False, True]


def test_new_entities_are_named_in_prompts_and_have_no_description() -> None:
    new = NewEntity("name9", ("Here is name9.",)), NewEntity("unheard", ("It is unheard.",))
    search, one = Search(), query()
    one.query = Query("q", (0, -1), (-2,), new=new)
    ours = Rules(max_rounds=1, descriptions=True, negatives_in_prompt=True, prompts="seedset")
    grown(search, [one], ours)
    about, *_, negatives, last = search.prompts[0].split("\n")
    assert about == "about name0"
    assert "unheard" in negatives
    assert sorted(last.removesuffix(" and").split(", ")) == ["name0", "name9"]
    assert not set(one.accepted) & {0, -1, -2}


def test_descriptions_and_negative_seeds_go_into_the_prompt() -> None:
    search = Search()
    unlike = query(negative=(5, 6, 7, 8))
    grown(search, [unlike], Rules(max_rounds=1, descriptions=True, negatives_in_prompt=True))
    *about, _, _, last = search.prompts[0].split("\n")
    listed, rest = last.removeprefix("similar to ").split(", rather than ")
    assert about == [f"about {name}" for name in listed.split(", ")]
    assert rest.endswith(", it is")
    assert len(set(rest.removesuffix(", it is").split(", ")) & {f"name{i}" for i in (5, 6, 7, 8)}) == 3
