"""Window search by hand, and against a plain search over dense distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import BundleError
from engine.query import Expansion, NewEntity, Query, Ranking
from engine.retrieval.distributions import EPSILON, SparseDistributions, distributions_folder, truncate
from engine.stages.base import Worker
from engine.stages.window_search import WindowSearch
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors, write_distributions


def bundle_of(root: Path, **views: np.ndarray) -> Bundle:
    """Publish entities with whole distributions [N, N] by view."""

    def more(staged: Path) -> None:
        for view, dense in views.items():
            write_distributions(staged, view, dense)

    names = [f"entity {i}" for i in range(len(next(iter(views.values()))))]
    return publish_vectors(Workspace.open(root), names, {}, more=more)


def two_sided(shares: Sequence[float]) -> np.ndarray:
    """Return distributions with a share x on the first two entities, and 1 - x on the others, evenly.

    So the mean of some has the mean share, and KL is that of two outcomes:
    x log(x / c) + (1 - x) log((1 - x) / (1 - c)).
    """
    x, n = np.array(shares)[:, None], len(shares)
    return np.concatenate([np.repeat(x / 2, 2, axis=1), np.repeat((1 - x) / (n - 2), n - 2, axis=1)], axis=1)


def run(bundle: Bundle, stage: WindowSearch, *queries: Query) -> list[Expansion]:
    return stage.open(bundle)([Expansion(query) for query in queries])


def test_the_search_by_hand(tmp_path: Path) -> None:
    """Shares: the seed 0.5, then 0.62, 0.36, 0.7, 0.25; a window of two.

    To the seed: 0.62: 0.0291, 0.36: 0.0397, 0.7: 0.0823, 0.25: 0.1308. 0.62 is taken, weighs 1/2, and the
    class is (0.5 + 0.31) / 1.5 = 0.54. To that: 0.36: 0.0654, 0.7: 0.0534. So 0.7 is taken before 0.36,
    and weighs 1/3: the class is (0.81 + 0.7 / 3) / 1.8333 = 0.5691. To that: 0.36: 0.0883, 0.25: more.
    With 0.36, of weight 1/4, it is (1.0433 + 0.09) / 2.0833 = 0.544. To that: 0.62: 0.0118, 0.7: 0.0509,
    0.36: 0.0683: ranks 1, 2, 3 as in the search.
    """
    bundle = bundle_of(tmp_path, multimodal=two_sided([0.5, 0.62, 0.36, 0.7, 0.25]))
    (found,) = run(bundle, WindowSearch(k=3, window=2), Query("q", (0,), top_k=3))
    assert found.ranking.ids.tolist() == [1, 3, 2]
    assert found.ranking.scores.tolist() == pytest.approx([9 + 1, 9 / 2 + 1 / 2, 9 / 3 + 1 / 3])
    assert found.ranking.evidence["rank"].tolist() == [1, 2, 3]
    divergences = found.ranking.evidence["divergence"].tolist()
    assert divergences == pytest.approx([0.02908, 0.08228, 0.03973], abs=2e-5)
    assert found.degraded == ()


def test_the_re_ranking_by_hand(tmp_path: Path) -> None:
    """A window of one takes 0.42, 0.6, 0.66 in the order of their divergence to the seed, 0.5.

    All weigh the same, so the class is (0.5 + 0.42 + 0.6 + 0.66) / 4 = 0.545 in the end. To that
    0.6: 0.006, 0.66: 0.027, 0.42: 0.031, so with mu = 1 the scores are 1/2 + 1, 1/3 + 1/2, and 1 + 1/3.
    """
    bundle = bundle_of(tmp_path, multimodal=two_sided([0.5, 0.42, 0.6, 0.66]))
    stage = WindowSearch(k=3, window=1, decay=0, mu=1)
    (found,) = run(bundle, stage, Query("q", (0,), top_k=3))
    assert found.ranking.ids.tolist() == [2, 1, 3]
    assert found.ranking.scores.tolist() == pytest.approx([3 / 2, 4 / 3, 5 / 6])
    assert found.ranking.evidence["rank"].tolist() == [2, 1, 3]


JOINT = [0.5, 0.7, 0.6, 0.8, 0.3]
"""Seeds 0.5 and 0.7. To 0.6 the first diverges by 0.0201, the second by 0.0226: the first takes it."""


@pytest.mark.parametrize("reverse", [False, True])
def test_an_entity_that_two_want_goes_to_the_nearer_one(tmp_path: Path, reverse: bool) -> None:
    """The loser takes 0.8, at 0.0257. Of the next turn 0.3 alone is left, which is nearer to the first."""
    bundle = bundle_of(tmp_path, multimodal=two_sided(JOINT))
    queries = [Query("a", (0,), top_k=2), Query("b", (1,), top_k=2)]
    if reverse:
        queries.reverse()
    both = {e.query.id: e for e in run(bundle, WindowSearch(k=2, jointly=True), *queries)}
    assert both["a"].ranking.ids.tolist() == [2, 4]
    assert both["b"].ranking.ids.tolist() == [3]
    alone = {e.query.id: e for e in run(bundle, WindowSearch(k=1), *queries)}
    assert [e.ranking.ids[0] for e in alone.values()] == [2, 2]


def test_only_a_joint_search_depends_on_the_call() -> None:
    assert WindowSearch(jointly=True).batch_dependent
    assert not WindowSearch().batch_dependent


def plain(p: np.ndarray, q: np.ndarray) -> float:
    return float((p * np.log(p / q)).sum())


class PlainSet:
    """The search of one query, everything computed anew over dense distributions."""

    def __init__(self, stage: WindowSearch, dense: np.ndarray, query: Query) -> None:
        self.stage, self.dense, self.query = stage, dense, query
        self.seeds = [i for i in query.positive if dense[i].any()]
        self.taken: list[int] = []
        self.first = {}
        if self.seeds:
            centre = self.centre()
            there = [i for i in range(len(dense)) if dense[i].any() and i not in query.seeds]
            self.first = {i: self.divergence(i, centre) for i in there}
        self.order = sorted(self.first, key=lambda i: (self.first[i], i))

    def centre(self) -> np.ndarray:
        weights = [1.0] * len(self.seeds) + [(2 + i) ** -self.stage.decay for i in range(len(self.taken))]
        return np.average(self.dense[self.seeds + self.taken], axis=0, weights=weights)

    def divergence(self, entity: int, centre: np.ndarray) -> float:
        p, q = ((1 - EPSILON) * x + EPSILON / len(x) for x in (self.dense[entity], centre))
        return plain(p, q) if self.stage.towards == "class" else plain(q, p)

    def wish(self, gone: set[int]) -> tuple[float, int] | None:
        window = [i for i in self.order if i not in gone][: self.stage.window]
        if not window:
            return None
        centre = self.centre()
        return min((self.divergence(i, centre), self.order.index(i)) for i in window)

    def answer(self) -> list[tuple[int, float]]:
        if not self.taken:
            return []
        centre = self.centre()
        by_class = sorted(self.taken, key=lambda i: self.divergence(i, centre))
        place = {i: self.taken.index(i) + 1 for i in self.taken}
        score = {i: self.stage.mu / place[i] + 1 / (by_class.index(i) + 1) for i in self.taken}
        return [(i, score[i]) for i in sorted(self.taken, key=lambda i: (-score[i], place[i]))]


def plain_search(stage: WindowSearch, dense: np.ndarray, queries: list[Query]) -> list[PlainSet]:
    if not stage.jointly and len(queries) > 1:
        return [plain_search(stage, dense, [query])[0] for query in queries]
    sets = [PlainSet(stage, dense, query) for query in queries]
    gone = {i for query in queries for i in query.positive} if stage.jointly else set()
    open_sets = [own for own in sets if own.order]
    while open_sets:
        wishes = {sets.index(own): wish for own in open_sets if (wish := own.wish(gone))}
        open_sets = []
        while wishes:
            number = min(wishes, key=lambda n: (wishes[n][0], n))
            own, (_, place) = sets[number], wishes.pop(number)
            entity = own.order[place]
            own.taken.append(entity)
            gone.add(entity)
            if len(own.taken) < max(stage.k, own.query.top_k):
                open_sets.append(own)
            for other in list(wishes):
                if sets[other].order[wishes[other][1]] == entity:
                    del wishes[other]
                    if wish := sets[other].wish(gone):
                        wishes[other] = wish
        open_sets.sort(key=sets.index)
    return sets


N = 18


@st.composite
def queries(draw: st.DrawFn) -> Query:
    seeds = draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=5, unique=True))
    cut = draw(st.integers(1, len(seeds)))
    return Query("q", tuple(seeds[:cut]), tuple(seeds[cut:]), draw(st.integers(1, N)))


STAGES = st.builds(
    WindowSearch,
    k=st.integers(1, N),
    window=st.integers(1, 6),
    mu=st.sampled_from([0.0, 1.0, 9.0]),
    decay=st.sampled_from([0.0, 0.5, 1.0]),
    towards=st.sampled_from(["class", "entity"]),
    jointly=st.booleans(),
)


def opened(sparse: SparseDistributions, stage: WindowSearch, root: Bundle) -> Worker:
    """Open a stage over other distributions than those of the bundle."""
    bundle = Bundle(root.manifest, root.folder)
    bundle.provide(distributions_folder("multimodal"), sparse)
    return stage.open(bundle)


@pytest.fixture(scope="module")
def some_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundle_of(tmp_path_factory.mktemp("w"), multimodal=np.full((N, N), 1 / N))


@settings(deadline=None, max_examples=150)
@given(STAGES, st.lists(queries(), min_size=1, max_size=4), st.integers(0, 2**32 - 1), st.integers(1, N))
def test_the_stage_ranks_as_a_plain_search_does(
    some_bundle: Bundle, stage: WindowSearch, asked: list[Query], seed: int, kept: int
) -> None:
    dense = np.random.default_rng(seed).dirichlet(np.full(N, 0.5), N)
    dense[:2] = 0  # no context
    sparse = SparseDistributions(*truncate(dense, kept))
    found = opened(sparse, stage, some_bundle)([Expansion(query) for query in asked])
    expected = plain_search(stage, sparse.dense(range(N)).astype(np.float64), asked)
    for one, own in zip(found, expected, strict=True):
        assert list(zip(one.ranking.ids.tolist(), one.ranking.scores.tolist(), strict=True)) == [
            (entity, pytest.approx(score, rel=1e-6)) for entity, score in own.answer()
        ]
        first = [own.first[i] for i in one.ranking.ids.tolist()]
        np.testing.assert_allclose(one.ranking.evidence.get("divergence", []), first, rtol=1e-4, atol=1e-5)
        assert not set(one.ranking.ids.tolist()) & {0, 1, *one.query.seeds}


@settings(deadline=None, max_examples=50)
@given(st.lists(queries(), min_size=2, max_size=5), st.integers(0, 2**32 - 1))
def test_a_ranking_does_not_depend_on_the_batch(some_bundle: Bundle, asked: list[Query], seed: int) -> None:
    sparse = SparseDistributions(*truncate(np.random.default_rng(seed).dirichlet(np.full(N, 0.5), N), 6))
    worker = opened(sparse, WindowSearch(k=5), some_bundle)
    for query, one in zip(asked, worker([Expansion(query) for query in asked]), strict=True):
        (alone,) = worker([Expansion(query)])
        np.testing.assert_array_equal(one.ranking.ids, alone.ranking.ids)
        np.testing.assert_array_equal(one.ranking.scores, alone.ranking.scores)


def test_seeds_without_a_distribution_are_left_out_and_said(tmp_path: Path) -> None:
    dense = two_sided([0.5, 0.6, 0.7, 0.9])
    dense[3] = 0
    new = (NewEntity("Atlantis", ("Atlantis sank.",)),)
    bundle = bundle_of(tmp_path, multimodal=dense)
    one, same, none = run(
        bundle,
        WindowSearch(),
        Query("q", (0, 3, -1), new=new),
        Query("r", (0,)),
        Query("s", (3,)),
    )
    assert one.degraded == (
        "WindowSearch: positive seed 3 has no distribution and was not used",
        "WindowSearch: positive seed 'Atlantis' has no distribution and was not used",
    )
    assert one.ranking.ids.tolist() == same.ranking.ids.tolist() == [1, 2]
    assert len(none.ranking) == 0
    assert len(none.degraded) == 1


def test_seeds_are_taken_from_their_own_view(tmp_path: Path) -> None:
    """By its words the seed is like 0.9, by both like 0.2: what is nearest to it differs."""
    both, words = two_sided([0.2, 0.25, 0.8, 0.5]), two_sided([0.9, 0.5, 0.5, 0.5])
    bundle = bundle_of(tmp_path, multimodal=both, words=words)
    assert run(bundle, WindowSearch(), Query("q", (0,)))[0].ranking.ids[0] == 1
    assert run(bundle, WindowSearch(seed_view="words"), Query("q", (0,)))[0].ranking.ids[0] == 2
    assert set(WindowSearch(seed_view="words").needs()) == {"distributions/multimodal", "distributions/words"}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return method_bundle(tmp_path_factory.mktemp("w"), n=60, d=8)


def test_conditions_and_a_recalled_list_narrow_what_is_searched(described: Bundle) -> None:
    even = (("parity", ("even",)),)
    given = Ranking(
        np.array([9, 4, 2, 30], np.int32), np.zeros(4, np.float32), {"old": np.arange(4, dtype=np.float32)}
    )
    query = Query("q", (1, 7), (3,), top_k=4)
    worker = WindowSearch(k=4).open(described)
    fulfil, recalled, both = worker(
        [
            Expansion(replace(query, filters=even)),
            Expansion(query, given),
            Expansion(replace(query, filters=even), given),
        ]
    )
    assert len(fulfil.ranking) == 4
    assert all(i % 2 == 0 for i in fulfil.ranking.ids)
    assert sorted(recalled.ranking.ids) == [2, 4, 9, 30]
    assert sorted(both.ranking.ids) == [2, 4, 30]
    old = {9: 0.0, 4: 1.0, 2: 2.0, 30: 3.0}
    assert both.ranking.evidence["old"].tolist() == [old[i] for i in both.ranking.ids]


def test_a_query_that_wants_more_gets_it(described: Bundle) -> None:
    found, no_more = run(described, WindowSearch(k=3), Query("q", (1,), top_k=10), Query("r", (1,), top_k=1))
    assert len(found.ranking) == 10
    assert len(no_more.ranking) == 3
    np.testing.assert_array_equal(np.sort(found.ranking.evidence["rank"])[:3], [1, 2, 3])


def test_a_view_that_is_not_there_is_named(described: Bundle) -> None:
    with pytest.raises(BundleError, match="distributions/none"):
        WindowSearch(view="none").open(described)


def test_no_queries_give_no_answers(described: Bundle) -> None:
    assert WindowSearch(jointly=True).open(described)([]) == []
