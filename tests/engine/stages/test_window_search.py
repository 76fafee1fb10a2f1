"""Window search by hand, and against a plain dense program of the authors' rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.stats import entropy

from engine.errors import BundleError
from engine.query import Expansion, NewEntity, Query, Ranking
from engine.retrieval.distributions import EntityDistributions, distributions_folder
from engine.retrieval.window import first_of
from engine.stages.base import Worker
from engine.stages.window_search import WindowSearch
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors, write_distributions
from tests.support.plain_window_search import PlainSearch, PlainSet


def bundle_of(root: Path, **views: tuple[np.ndarray, np.ndarray]) -> Bundle:
    """Publish entities with whole distributions and log-distributions [N, N] by view."""

    def more(staged: Path) -> None:
        for view, (dense, logs) in views.items():
            write_distributions(staged, view, dense, logs)

    names = [f"entity {i}" for i in range(len(next(iter(views.values()))[0]))]
    return publish_vectors(Workspace.open(root), names, {}, more=more)


def run(bundle: Bundle, stage: WindowSearch, *queries: Query) -> list[Expansion]:
    return stage.open(bundle)([Expansion(query) for query in queries])


EVEN = np.full((5, 5), 0.2)
LOGS = np.array(
    [
        [0, 4, 3, 2, 1],
        [0, 0, -9, 0, 9],  # what 1 predicts moves 4 before 2
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ],
    float,
)


def test_every_member_says_what_comes_next(tmp_path: Path) -> None:
    """The seed 0 predicts 1, 2, 3, 4 in this order; 1 predicts 4 and not 2; others say nothing.

    Standardised, the seed has 1.414, 0.707, 0, -0.707 for 1 to 4 and entity 1 has -1.58, 0, 1.58 for 2 to 4.
    """
    (found,) = run(bundle_of(tmp_path, multimodal=(EVEN, LOGS)), WindowSearch(k=4), Query("q", (0,), top_k=4))
    assert found.ranking.evidence["rank"].tolist() == [1, 2, 3, 4]
    assert found.ranking.ids.tolist() == [1, 4, 3, 2]
    assert found.degraded == ()


def test_the_window_takes_who_expects_the_members(tmp_path: Path) -> None:
    """Of the first two, 1 and 2, the second puts more on the seed, and so is taken first."""
    p = np.full((5, 5), 0.2)
    p[2] = [0.8, 0.05, 0.05, 0.05, 0.05]
    bundle = bundle_of(tmp_path, multimodal=(p, LOGS))
    (one,) = run(bundle, WindowSearch(k=1), Query("q", (0,), top_k=1))
    (two,) = run(bundle, WindowSearch(k=1, first_window=2), Query("q", (0,), top_k=1))
    assert (one.ranking.ids.tolist(), two.ranking.ids.tolist()) == ([1], [2])
    # In re-ranking s is 0.2 at all of N = 5 but 1,600 times as much at both of the set. Its sum is not one:
    # the function that the authors' program calls takes it so, and divides it.
    s = np.array([320, 0.2, 320, 0.2, 0.2])
    assert two.ranking.evidence["divergence"][0] == pytest.approx(entropy(s, p[2]), rel=1e-5)


def test_the_place_and_the_rank_by_divergence_are_summed(tmp_path: Path) -> None:
    """With mu = 0.5 the rank counts more: 2, which expects the set most, comes first."""
    p = np.full((5, 5), 0.2)
    p[2] = [0.35, 0.25, 0.3, 0.05, 0.05]
    stage = WindowSearch(k=2, mu=0.5)
    (found,) = run(
        bundle_of(tmp_path, multimodal=(p, LOGS * [[1], [0], [0], [0], [0]])),
        stage,
        Query("q", (0,), top_k=2),
    )
    assert found.ranking.ids.tolist() == [2, 1]
    assert found.ranking.scores.tolist() == pytest.approx([0.5 / 2 + 1, 0.5 + 1 / 2])
    assert found.ranking.evidence["rank"].tolist() == [2, 1]


@pytest.mark.parametrize("reverse", [False, True])
def test_an_entity_that_two_want_goes_to_the_first_of_the_call(tmp_path: Path, reverse: bool) -> None:
    logs = np.array([[0, 0, 3, 2, 1], [0, 0, 3, 2, 1], [0] * 5, [0] * 5, [0] * 5], float)
    bundle = bundle_of(tmp_path, multimodal=(EVEN, logs))
    queries = [Query("a", (0,), top_k=2), Query("b", (1,), top_k=2)]
    if reverse:
        queries.reverse()
    first, second = run(bundle, WindowSearch(k=2, jointly=True), *queries)
    assert first.ranking.ids.tolist() == [2, 4]
    assert second.ranking.ids.tolist() == [3]
    alone = run(bundle, WindowSearch(k=1), *queries)
    assert [e.ranking.ids[0] for e in alone] == [2, 2]


def test_only_a_joint_search_depends_on_the_call() -> None:
    assert WindowSearch(jointly=True).batch_dependent
    assert not WindowSearch().batch_dependent


@pytest.mark.parametrize("former", ["window", "decay", "towards"])
def test_settings_of_the_former_search_are_refused(former: str) -> None:
    with pytest.raises(ValidationError, match=f"no setting '{former}' any more.*first_window"):
        WindowSearch.model_validate({former: 1})


N = 18


@st.composite
def queries(draw: st.DrawFn) -> Query:
    seeds = draw(st.lists(st.integers(0, N - 1), min_size=1, max_size=5, unique=True))
    cut = draw(st.integers(1, len(seeds)))
    return Query("q", tuple(seeds[:cut]), tuple(seeds[cut:]), draw(st.integers(1, N)))


STAGES = st.builds(
    WindowSearch,
    k=st.integers(1, N),
    first_window=st.sampled_from([1, 1.5, 2, 4]),
    window_growth=st.sampled_from([0, 0.4, 2.5]),
    window_steps=st.integers(1, 6),
    mu=st.sampled_from([0.0, 1.0, 9.0]),
    iterations=st.integers(1, 4),
    jointly=st.booleans(),
    seed_view=st.sampled_from([None, "words"]),
)


class World:
    """Random distributions of two views; absent in either: no context. Ties: entities predicted alike."""

    def __init__(self, seed: int, n: int, absent: int = 2, ties: int = 5) -> None:
        random = np.random.default_rng(seed)
        self.p, self.logs = {}, {}
        for view in ("multimodal", "words"):
            p = random.dirichlet(np.full(n, 0.7), n)
            logs = random.normal(-4, 2, (n, n))
            for one, other in random.integers(0, n, (ties, 2)):
                logs[:, one] = logs[:, other]
            for row in random.permutation(n)[:absent]:
                p[row], logs[row] = 0, 0
            # As float32 holds it, so that what is near a tie is one for both.
            self.p[view], self.logs[view] = p.astype(np.float32).astype(np.float64), logs

    def sparse(self, view: str, kept: int = 256) -> EntityDistributions:
        return EntityDistributions.of(self.p[view], self.logs[view], kept)

    def expected(
        self, stage: WindowSearch, asked: Sequence[Query], free: Sequence[set[int]]
    ) -> list[PlainSet]:
        """Return what the plain program takes, for each query in order."""
        of_seeds, n = stage.seed_view or "multimodal", len(self.p["words"])
        plain = PlainSearch(
            self.p["multimodal"], self.logs["multimodal"], self.logs[of_seeds], stage.mu,
            stage.first_window, stage.window_growth, stage.window_steps,
        )  # fmt: skip
        there = {i for i in range(n) if self.p["multimodal"][i].any()}
        if stage.jointly:
            # Seeds of the queries that take part: one without a usable seed is not expanded.
            usable = [q for q in asked if any(self.p[of_seeds][s].any() for s in q.positive)]
            there -= {s for query in usable for s in query.positive}
        sets = [
            PlainSet(
                [s for s in query.positive if self.p[of_seeds][s].any()],
                (there & own) - set(query.seeds),
                max(stage.k, query.top_k),
            )
            for query, own in zip(asked, free, strict=True)
        ]
        growing = [own for own in sets if own.seeds]
        for group in [growing] if stage.jointly else [[own] for own in growing]:
            plain.run(group, stage.iterations)
        return sets


def check(found: Sequence[Expansion], expected: Sequence[PlainSet]) -> None:
    for one, own in zip(found, expected, strict=True):
        assert list(zip(one.ranking.ids.tolist(), one.ranking.scores.tolist(), strict=True)) == [
            (entity, pytest.approx(own.scores[entity], rel=1e-6)) for entity in own.members[len(own.seeds) :]
        ]
        divergences = [own.divergences[i] for i in one.ranking.ids.tolist()]
        np.testing.assert_allclose(one.ranking.evidence.get("divergence", []), divergences, rtol=1e-5)


def opened(world: World, stage: WindowSearch, root: Bundle, kept: int = 256) -> Worker:
    """Open a stage over other distributions than those of the bundle."""
    bundle = Bundle(root.manifest, root.folder)
    for view in ("multimodal", "words"):
        bundle.provide(distributions_folder(view), world.sparse(view, kept))
    return stage.open(bundle)


@pytest.fixture(scope="module")
def some_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    rows = np.full((N, N), 1 / N)
    return bundle_of(tmp_path_factory.mktemp("w"), multimodal=(rows, rows), words=(rows, rows))


RANDOM = st.integers(0, 2**32 - 1)


@settings(max_examples=40)
@given(STAGES, st.lists(queries(), min_size=1, max_size=4), RANDOM, st.data())
def test_the_stage_ranks_as_the_plain_program_does(
    some_bundle: Bundle, stage: WindowSearch, asked: list[Query], seed: int, data: st.DataObject
) -> None:
    """Over all entities, and over those that a stage before recalled."""
    world, everything = World(seed, N), np.arange(N, dtype=np.int32)
    recalled = [
        np.array(data.draw(st.lists(st.sampled_from(range(N)), unique=True)), np.int32) for _ in asked
    ]
    rankings = [Ranking(ids, np.zeros(len(ids), np.float32)) for ids in recalled]
    given = [Expansion(query, ranking) for query, ranking in zip(asked, rankings, strict=True)]
    free = [set((ids if len(ids) else everything).tolist()) for ids in recalled]
    check(opened(world, stage, some_bundle)(given), world.expected(stage, asked, free))


def test_a_long_search_passes_every_width_and_multiple_of_the_authors(some_bundle: Bundle) -> None:
    """120 entities of 125, with their schedule: the window widens at 20 and 50 and is one from 100 on."""
    n = 125
    world = World(11, n, ties=20)
    stage = WindowSearch(k=120)
    asked = [Query("q", (5, 9, 70), (4,), top_k=10)]
    check(
        opened(world, stage, some_bundle)([Expansion(q) for q in asked]),
        world.expected(stage, asked, [set(range(n))]),
    )


@pytest.mark.parametrize(("iterations", "jointly"), [(2, False), (4, True), (6, False), (8, True)])
def test_further_iterations_begin_where_the_authors_do(
    some_bundle: Bundle, iterations: int, jointly: bool
) -> None:
    """Sets of 30, so that the first 13, and longer common beginnings, are parts of them."""
    n = 64
    world = World(5, n, ties=0)
    stage = WindowSearch(k=30, iterations=iterations, jointly=jointly, first_window=3, window_steps=3, mu=1)
    asked = [Query("q", (5, 9, 60), (4,), top_k=10), Query("r", (1, 2))]
    check(
        opened(world, stage, some_bundle)([Expansion(q) for q in asked]),
        world.expected(stage, asked, [set(range(n))] * 2),
    )


@settings(max_examples=40)
@given(st.lists(st.sampled_from([-np.inf, 0.0, 0.5, 1.0, 2.0]), min_size=1, max_size=200), st.integers(1, 9))
def test_the_window_is_the_beginning_of_the_order(sums: list[float], count: int) -> None:
    order = sorted((i for i, one in enumerate(sums) if one > -np.inf), key=lambda i: (-sums[i], i))
    assert first_of(np.array(sums), count).tolist() == order[:count]


def test_an_even_tail_that_is_not_kept_changes_nothing(some_bundle: Bundle) -> None:
    """Where what is cut off is all the same, the sparse search is the dense one."""
    world = World(3, N, ties=0)
    for view in ("multimodal", "words"):
        for rows in (world.p[view], world.logs[view]):
            rows[:] = np.where(
                np.argsort(np.argsort(-rows, axis=1), axis=1) < 6, rows, rows.min(axis=1, keepdims=True)
            )
        world.p[view] /= np.maximum(world.p[view].sum(axis=1, keepdims=True), 1e-9)
    stage = WindowSearch(k=12, window_steps=2)
    asked = [Query("q", (5, 9, 7))]
    found = opened(world, stage, some_bundle, kept=6)([Expansion(q) for q in asked])
    expected = world.expected(stage, asked, [set(range(N))])
    assert found[0].ranking.ids.tolist() == expected[0].members[len(expected[0].seeds) :]


@settings(max_examples=15)
@given(st.lists(queries(), min_size=2, max_size=5), RANDOM)
def test_a_ranking_does_not_depend_on_the_batch(some_bundle: Bundle, asked: list[Query], seed: int) -> None:
    worker = opened(World(seed, N), WindowSearch(k=5, iterations=2), some_bundle, kept=6)
    for query, one in zip(asked, worker([Expansion(query) for query in asked]), strict=True):
        (alone,) = worker([Expansion(query)])
        np.testing.assert_array_equal(one.ranking.ids, alone.ranking.ids)
        np.testing.assert_array_equal(one.ranking.scores, alone.ranking.scores)


def test_seeds_without_a_distribution_are_left_out_and_said(tmp_path: Path) -> None:
    p = EVEN.copy()
    p[3] = 0
    new = (NewEntity("Atlantis", ("Atlantis sank.",)),)
    bundle = bundle_of(tmp_path, multimodal=(p, LOGS))
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
    assert one.ranking.ids.tolist() == same.ranking.ids.tolist() == [1, 4, 2]
    assert len(none.ranking) == 0
    assert len(none.degraded) == 1


def test_seeds_predict_in_their_own_view(tmp_path: Path) -> None:
    """By its words the seed predicts 2 most, by both 1."""
    words = LOGS.copy()
    words[0] = [0, 1, 4, 2, 3]
    bundle = bundle_of(tmp_path, multimodal=(EVEN, LOGS), words=(EVEN, words))
    assert run(bundle, WindowSearch(), Query("q", (0,)))[0].ranking.ids[0] == 1
    assert run(bundle, WindowSearch(seed_view="words"), Query("q", (0,)))[0].ranking.ids[0] == 2
    assert set(WindowSearch(seed_view="words").needs()) == {
        "distributions/multimodal",
        "distributions/multimodal/log",
        "distributions/words",
        "distributions/words/log",
    }


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
    assert WindowSearch(k=3, iterations=2).cost(Expansion(Query("q", (1,), top_k=10))) == 20


def test_a_view_that_is_not_there_is_named(described: Bundle) -> None:
    with pytest.raises(BundleError, match=r"distributions/none.*run `seedset build-index`"):
        WindowSearch(view="none").open(described)


def test_no_queries_give_no_answers(described: Bundle) -> None:
    assert WindowSearch(jointly=True).open(described)([]) == []
