from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import BundleError, UnknownAttributeError
from engine.query import Expansion, NewEntity, Query, Ranking
from engine.retrieval.opening import open_index
from engine.stages.base import Worker
from engine.stages.retrieve import Retrieve
from engine.storage.bundle import Bundle
from engine.storage.workspace import Workspace
from tests.support.bundles import method_bundle, publish_vectors, random_bundle

N = 60


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return random_bundle(tmp_path_factory.mktemp("w"), n=N, d=8)


@pytest.fixture(scope="module")
def worker(bundle: Bundle) -> Worker:
    return Retrieve(k=20).open(bundle)


@st.composite
def queries(draw: st.DrawFn) -> Query:
    seeds = draw(st.lists(st.integers(0, N - 1), min_size=2, max_size=8, unique=True))
    cut = draw(st.integers(1, len(seeds)))
    return Query("q", tuple(seeds[:cut]), tuple(seeds[cut:]), draw(st.integers(1, 2 * N)))


def test_the_score_is_the_mean_cosine_to_the_positive_seeds(tmp_path: Path) -> None:
    """Equation 5, by hand: seeds along x and y, candidates at known angles."""
    vectors = np.array([[1, 0], [0, 2], [3, 4], [1, 1], [-1, 0], [0, 0]], float)
    bundle = publish_vectors(Workspace.open(tmp_path), list("abcdef"), {"mask": vectors})
    worker = Retrieve(k=10).open(bundle)
    (found,) = worker([Expansion(Query("q", (0, 1)))])
    assert found.ranking.ids.tolist() == [3, 2, 4]  # f has no vector and cannot be found
    expected = [np.sqrt(0.5), (0.6 + 0.8) / 2, (-1 + 0) / 2]
    np.testing.assert_allclose(found.ranking.scores, expected, rtol=1e-6)
    np.testing.assert_array_equal(found.ranking.evidence["positive"], found.ranking.scores)
    assert found.degraded == ()


def test_a_seed_without_a_vector_is_left_out_and_said(tmp_path: Path) -> None:
    vectors = np.array([[1, 0], [0, 0], [3, 4]], float)
    bundle = publish_vectors(Workspace.open(tmp_path), list("abc"), {"mask": vectors})
    worker = Retrieve().open(bundle)
    one, none = worker([Expansion(Query("q", (0, 1))), Expansion(Query("r", (1,)))])
    assert one.ranking.ids.tolist() == [2]
    assert one.ranking.scores.tolist() == [pytest.approx(0.6)]  # not 0.3
    assert one.degraded == ("Retrieve: positive seed 1 has no sentence and was not used",)
    assert len(none.ranking) == 0
    assert len(none.degraded) == 1


def test_hubness_is_taken_off_the_score_not_off_the_evidence(tmp_path: Path) -> None:
    vectors = np.array([[1, 0], [1, 0], [3, 4]], float)
    hubs = {"mask": np.array([0, 1, 0])}
    bundle = publish_vectors(Workspace.open(tmp_path), list("abc"), {"mask": vectors}, hubs)
    (found,) = Retrieve(hubness=0.5).open(bundle)([Expansion(Query("q", (0,)))])
    assert found.ranking.ids.tolist() == [2, 1]
    assert found.ranking.scores.tolist() == pytest.approx([0.6, 0.5])
    assert found.ranking.evidence["positive"].tolist() == pytest.approx([0.6, 1.0])


def test_a_view_that_is_not_there_is_named(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=r"index/none\.faiss"):
        Retrieve(view="none").open(bundle)


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with attributes: a tenth is "rare", every other one "even"."""
    return method_bundle(tmp_path_factory.mktemp("w"), n=N, d=8)


RARE, EVEN = ("class", ("rare",)), ("parity", ("even",))


@pytest.mark.parametrize("filters", [(RARE,), (EVEN,), (RARE, EVEN), (("parity", ("even", "odd")),)])
def test_conditions_narrow_what_is_ranked_not_what_was_ranked(described: Bundle, filters) -> None:
    """The list is full: it holds the best of those that fulfil all, few or many."""
    stage = Retrieve(k=4, view="joint", hubness=0.6)
    query = Query("q", (1, 7), (3,), top_k=4)
    (whole,) = stage.model_copy(update={"k": N}).open(described)([Expansion(query)])
    fulfils = [
        (RARE not in filters or i < N // 10) and (EVEN not in filters or i % 2 == 0)
        for i in whole.ranking.ids
    ]
    expected = whole.ranking.take(np.flatnonzero(fulfils)).head(4)
    alone, other = stage.open(described)([Expansion(replace(query, filters=filters)), Expansion(query)])
    np.testing.assert_array_equal(alone.ranking.ids, expected.ids)
    np.testing.assert_array_equal(alone.ranking.scores, expected.scores)
    np.testing.assert_array_equal(other.ranking.ids, whole.ranking.ids[:4])


def test_conditions_narrow_a_list_that_was_recalled(described: Bundle) -> None:
    given = Ranking(
        np.array([9, 4, 2, 30], np.int32), np.zeros(4, np.float32), {"old": np.arange(4, dtype=np.float32)}
    )
    query = Query("q", (1, 7), filters=(EVEN,))
    (found,) = Retrieve(view="joint").open(described)([Expansion(query, given)])
    assert sorted(found.ranking.ids) == [2, 4, 30]
    old = {4: 1.0, 2: 2.0, 30: 3.0}
    assert found.ranking.evidence["old"].tolist() == [old[i] for i in found.ranking.ids]
    assert (np.diff(found.ranking.scores) <= 0).all()


def test_an_attribute_that_is_not_there_is_named(described: Bundle) -> None:
    with pytest.raises(UnknownAttributeError, match="colour"):
        Retrieve().open(described)([Expansion(Query("q", (1,), filters=(("colour", ("red",)),)))])


def test_a_new_seed_counts_like_one_that_is_known(bundle: Bundle, worker: Worker) -> None:
    vector = open_index(bundle, "mask").vectors_of([5])[0]
    new = NewEntity("five", ("five is here",), {"mask": vector})
    (known,) = worker([Expansion(Query("q", (3, 5), (N - 2,), top_k=N))])
    (found,) = worker([Expansion(Query("q", (3, -1), (N - 2,), top_k=N, new=(new,)))])
    kept = found.ranking.take(np.flatnonzero(found.ranking.ids != 5))  # only a known seed is left out
    assert len(kept) == len(found.ranking) - 1 == N - 3
    np.testing.assert_array_equal(kept.ids, known.ranking.ids)
    np.testing.assert_array_equal(kept.scores, known.ranking.scores)


def test_a_new_seed_without_a_vector_is_named(worker: Worker) -> None:
    new = (NewEntity("Atlantis", ("Atlantis sank.",)),)
    one, none = worker([Expansion(Query("q", (3, -1), new=new)), Expansion(Query("r", (-1,), new=new))])
    (same,) = worker([Expansion(Query("q", (3,)))])
    assert one.degraded == ("Retrieve: positive seed 'Atlantis' has no sentence and was not used",)
    np.testing.assert_array_equal(one.ranking.scores, same.ranking.scores)
    assert len(none.ranking) == 0


def test_no_queries_give_no_answers(worker: Worker) -> None:
    assert worker([]) == []


@given(queries())
def test_seeds_never_come_back_and_scores_fall_with_ties_by_id(worker: Worker, query: Query) -> None:
    (found,) = worker([Expansion(query)])
    ids, scores = found.ranking.ids, found.ranking.scores
    assert not set(ids.tolist()) & set(query.seeds)
    assert len(set(ids.tolist())) == len(ids) == min(max(20, query.top_k), N - len(query.seeds))
    np.testing.assert_array_equal(np.lexsort((ids, -scores)), np.arange(len(ids)))


@given(st.lists(queries(), min_size=1, max_size=6))
def test_a_ranking_does_not_depend_on_the_batch(worker: Worker, many: list[Query]) -> None:
    together = worker([Expansion(query) for query in many])
    for query, found in zip(many, together, strict=True):
        (alone,) = worker([Expansion(query)])
        np.testing.assert_array_equal(found.ranking.ids, alone.ranking.ids)
        np.testing.assert_array_equal(found.ranking.scores, alone.ranking.scores)


def test_seeds_are_taken_from_their_own_view(tmp_path: Path) -> None:
    """In the view of the seeds the seed points elsewhere than among the candidates."""
    both = np.array([[1, 0], [3, 1], [1, 3]], float)
    words = np.array([[0, 1], [1, 0], [1, 0]], float)
    views = {"both": both, "words": words, "long": np.eye(3)}
    bundle = publish_vectors(Workspace.open(tmp_path), list("abc"), views)
    (same,) = Retrieve(view="both").open(bundle)([Expansion(Query("q", (0,)))])
    (other,) = Retrieve(view="both", seed_view="words").open(bundle)([Expansion(Query("q", (0,)))])
    assert same.ranking.ids.tolist() == [1, 2]
    assert other.ranking.ids.tolist() == [2, 1]
    assert other.ranking.scores.tolist() == pytest.approx([3 / np.sqrt(10), 1 / np.sqrt(10)])
    assert Retrieve(view="both", seed_view="words").needs() == ("index/both.faiss", "index/words.faiss")
    with pytest.raises(BundleError, match="'both' of 2 and 'long' of 3"):
        Retrieve(view="both", seed_view="long").open(bundle)
