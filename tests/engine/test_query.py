import copy
import pickle
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import QueryError, UnknownEntityError
from engine.filters import Junction, Prefix, Range
from engine.query import (
    MAX_EXCLUDED,
    MAX_SEEDS,
    MAX_TOP_K,
    Deadline,
    Expansion,
    NewEntity,
    Query,
    Ranking,
    Selection,
)
from engine.query_rows import from_rows, to_rows

FLOATS = st.floats(width=32, allow_nan=False)

SAID: list[dict[str, Any]] = [
    {},
    {"class_name": "ü", "positive_attributes": (("a", ("b", "c")), ("d", ())), "negative_attributes": ()},
    {"negative_attributes": (("", ("",)),)},
    {"exclude": (7, 8), "selection": Selection(3, -0.25, "colour", 2, 0.5, ("a", "b"))},
    {"selection": Selection(facets=True), "context": ((200, 201), (202, 200))},
    {"filters": (("f", ("g",)),), "exclude": (9,)},
    {"filters": (("a", ("b", "c")), Junction("none", ((Range("d", (("gte", 1.5),)), Prefix("e", "f")),)))},
]
"""What a query says of its seeds."""


@st.composite
def expansions(draw: st.DrawFn) -> Expansion:
    ids = draw(st.lists(st.integers(0, 2**31 - 1), max_size=8))
    column = st.lists(FLOATS, min_size=len(ids), max_size=len(ids))
    ranking = Ranking(
        np.array(ids, np.int32),
        np.array(draw(column), np.float32),
        {name: np.array(draw(column), np.float32) for name in draw(st.sets(st.text(max_size=5), max_size=3))},
    )
    seeds = draw(st.lists(st.integers(0, 99), min_size=2, max_size=6, unique=True))
    said = draw(st.sampled_from(SAID))
    query = Query(draw(st.text()), tuple(seeds[:1]), tuple(seeds[1:]), draw(st.integers(1, 50)), **said)
    seconds = draw(st.dictionaries(st.text(max_size=5), st.floats(0, 1e6), max_size=3))
    reasoning = draw(st.sampled_from([{}, {"class_name": "ü", "positive": ""}]))
    return Expansion(query, ranking, seconds, tuple(draw(st.lists(st.text(), max_size=2))), reasoning)


def same(one: Expansion, other: Expansion) -> None:
    assert (one.query, dict(one.seconds), one.degraded, dict(one.reasoning)) == (
        other.query,
        dict(other.seconds),
        other.degraded,
        dict(other.reasoning),
    )
    assert list(one.ranking.evidence) == list(other.ranking.evidence)
    columns = zip(
        [one.ranking.ids, one.ranking.scores, *one.ranking.evidence.values()],
        [other.ranking.ids, other.ranking.scores, *other.ranking.evidence.values()],
        strict=True,
    )
    for mine, theirs in columns:
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@given(st.lists(expansions(), max_size=3))
def test_rows_keep_everything(many) -> None:
    for one, other in zip(many, from_rows(to_rows(many)), strict=True):
        same(one, other)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (Query("q", (1,), deadline=Deadline.within(9)), "no deadlines"),
        (Query("q", (1,), deleted=(2,)), "nothing of an overlay"),
    ],
)
def test_what_no_row_can_hold_is_refused(query: Query, reason: str) -> None:
    with pytest.raises(ValueError, match=f"query 'q': tables carry {reason}"):
        to_rows([Expansion(query)])


def test_vectors_given_as_seeds_cross_tables() -> None:
    given = NewEntity("positive.0", (), {"joint": np.array([0.6, 0.8], np.float32)})
    (found,) = from_rows(to_rows([Expansion(Query("q", (-1,), new=(given,)))]))
    (new,) = found.query.new
    assert (new.name, new.is_given, found.query.unencoded) == ("positive.0", True, ())
    assert new.vectors["joint"].tolist() == given.vectors["joint"].tolist()


def test_repeated_seeds_count_once() -> None:
    query = Query("q", (3, 1, 3), (2, 2))
    assert (query.positive, query.negative, query.seeds) == ((3, 1), (2,), (3, 1, 2))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (((), ()), "at least one positive seed, or a negative"),
        (((1,), (2,), 5, (), (), None, "", (), (), (), (), Selection(), ((3, 1.0),)), "of no seed"),
        (((1,), (), 5, (), (), None, "", (), (), (), (), Selection(), (), (), ((3, 3),)), "entity 3 on both"),
        (((1, 2), (2,)), r"\[2\] are positive and negative"),
        ((tuple(range(MAX_SEEDS + 1)),), f"at most {MAX_SEEDS}"),
        (((0,), tuple(range(1, MAX_SEEDS + 2))), f"at most {MAX_SEEDS}"),
        (((1,), (), 0), "top_k is 0"),
        (((1,), (), MAX_TOP_K + 1), "top_k"),
        (((1,), (), MAX_TOP_K, (), (), None, "", (), (), (), (), Selection(1)), "offset is 1"),
        (((1,), (), 5, (), (), None, "", (), (), (), tuple(range(MAX_EXCLUDED + 1))), "exclude: at most"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(arguments, reason) -> None:
    with pytest.raises(QueryError, match=rf"query 'q'.*{reason}"):
        Query("q", *arguments)


def test_a_ranking_refuses_columns_of_another_length() -> None:
    with pytest.raises(ValueError, match="'positive'"):
        Ranking(np.zeros(2, np.int32), np.zeros(2, np.float32), {"positive": np.zeros(3, np.float32)})


def test_head_and_take_move_every_column_alike() -> None:
    ranking = Ranking(
        np.array([5, 6, 7], np.int32),
        np.array([3, 2, 1], np.float32),
        {"x": np.array([0.5, 0.6, 0.7], np.float32)},
    )
    taken = ranking.take(np.array([2, 0]))
    assert taken.ids.tolist() == [7, 5]
    assert taken.evidence["x"].tolist() == np.array([0.7, 0.5], np.float32).tolist()
    assert len(ranking.head(2)) == 2
    assert len(ranking.head(9)) == 3
    assert len(Ranking.empty()) == 0


def test_errors_cross_processes_whole() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnknownEntityError("irn", ["iron"], "query 'q'")))
    assert (error.given, error.closest, error.status) == ("irn", ["iron"], 422)
    assert str(error) == "query 'q': unknown entity 'irn'; did you mean 'iron'?"


@pytest.mark.parametrize("seconds", [5.0, -3.0])
@pytest.mark.parametrize("ahead_s", [2.0, -2.0, 1e7])
def test_a_deadline_crosses_to_another_machine_as_the_time_that_remains(
    monkeypatch: pytest.MonkeyPatch, seconds: float, ahead_s: float
) -> None:
    wall, monotonic = time.time, time.monotonic
    sent = pickle.dumps(Expansion(Query("q", (1,), deadline=Deadline.within(seconds))))
    monkeypatch.setattr(time, "time", lambda: wall() + ahead_s)
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + ahead_s)
    deadline = pickle.loads(sent).query.deadline
    assert deadline.remaining() == pytest.approx(seconds, abs=0.5)
    assert copy.deepcopy(deadline).remaining() == pytest.approx(seconds, abs=0.5)


def test_of_two_deadlines_the_later_is_the_larger() -> None:
    assert max(Deadline.within(1), Deadline.within(3), Deadline.within(2)).remaining() > 2
