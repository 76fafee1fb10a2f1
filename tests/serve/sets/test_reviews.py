"""Blind reviews: each curator's marks alone, the agreement of all once all are done."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.queries.making.statistics import cohen_kappa, fleiss_kappa
from serve.sets.errors import SetChangeError, UnknownSetError
from serve.sets.events import JUDGE
from serve.sets.reviews import ReviewStore
from serve.sets.store import SetStore
from tests.serve.sets.test_store import judge

Json = dict[str, Any]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReviewStore]:
    numbers = count()
    opened = ReviewStore(tmp_path / "sets.sqlite", clock=lambda: f"2026-01-01T00:00:{next(numbers):02d}")
    yield opened
    opened.close()


@pytest.fixture
def set_id(store: ReviewStore) -> str:
    """A set that accepts a, b, c and rejects d."""
    found = str(store.create("s", None, "ada")["id"])
    store.append(found, 1, JUDGE, judge("abc", "d"), "ada")
    return found


def review(store: ReviewStore, set_id: str, by: str, accept: str, reject: str) -> None:
    number = store.begin_review(set_id, by)["round"]
    store.mark_review(set_id, by, number, list(accept), list(reject), [], True)


def test_marks_are_blind_until_all_are_done(store: ReviewStore, set_id: str) -> None:
    before = store.export(set_id)
    begun = store.begin_review(set_id, "bob")
    assert (begun["round"], begun["version"], begun["done"]) == (1, 2, False)
    assert sorted(one["name"] for one in begun["entities"]) == list("abcd")
    assert {one["accepted"] for one in begun["entities"]} == {None}
    told = store.mark_review(set_id, "bob", 1, ["a"], ["b", "d"], [], False)
    assert told == {"round": 1, "judged": 3, "entities": 4, "done": False}
    store.mark_review(set_id, "bob", 1, ["b"], [], ["d"], False)
    again = {one["name"]: one["accepted"] for one in store.begin_review(set_id, "bob")["entities"]}
    assert again == {"a": True, "b": True, "c": None, "d": None}, "a review is gone on with"
    assert {one["accepted"] for one in store.begin_review(set_id, "eve")["entities"]} == {None}

    store.mark_review(set_id, "bob", 1, [], ["c", "d"], [], True)
    blind = store.reviews(set_id, 10)
    assert blind["agreement"] is None
    assert [(one["name"], one["judged"], one["done"]) for one in blind["reviewers"]] == [
        ("bob", 4, True),
        ("eve", 0, False),
    ]
    store.mark_review(set_id, "eve", 1, list("abc"), ["d"], [], True)
    found = store.reviews(set_id, 10)["agreement"]
    assert found["pairs"] == [
        {
            **{"curators": ["bob", "eve"], "judged": 4, "agreed": 3},
            "kappa": round(cohen_kappa(np.array([[1, 0], [1, 2]])), 4),
        }
    ]
    assert (found["shared"], found["agreed"], found["together"]) == (4, 3, None)
    assert [(one["curators"], one["agreed"]) for one in found["with_set"]] == [(["bob"], 3), (["eve"], 4)]
    assert found["disagreements"] == [{"name": "c", "accepted_by": ["eve"], "rejected_by": ["bob"]}]
    assert store.export(set_id) == before, "the set is as it was"


def test_one_review_alone_stays_blind(store: ReviewStore, set_id: str) -> None:
    review(store, set_id, "bob", "abc", "d")
    assert store.reviews(set_id, 10)["agreement"] is None


def test_three_are_compared_together(store: ReviewStore, set_id: str) -> None:
    for by in ("bob", "eve", "dan"):
        store.begin_review(set_id, by)
    for by, accept, reject in (("bob", "abc", "d"), ("eve", "ab", "cd"), ("dan", "abd", "c")):
        review(store, set_id, by, accept, reject)
    together = store.reviews(set_id, 10)["agreement"]["together"]
    assert together["kappa"] == round(fleiss_kappa(np.array([[3, 0], [3, 0], [1, 2], [1, 2]])), 4)
    assert (together["judged"], together["agreed"]) == (4, 2)


def test_the_next_round_has_what_the_set_is_then(store: ReviewStore, set_id: str) -> None:
    store.begin_review(set_id, "bob")
    store.append(set_id, 2, JUDGE, judge("e", "", "a"), "ada")
    assert sorted(one["name"] for one in store.begin_review(set_id, "eve")["entities"]) == list("abcd")
    for by in ("bob", "eve"):
        review(store, set_id, by, "ab", "")
    later = store.begin_review(set_id, "bob")
    assert (later["round"], later["version"]) == (2, 3)
    assert sorted(one["name"] for one in later["entities"]) == list("bcde")
    assert store.reviews(set_id, 10)["agreement"] is None


def test_the_order_is_a_curators_own_and_tells_nothing(store: ReviewStore) -> None:
    names = "".join(map(chr, range(ord("a"), ord("z") + 1)))
    set_id = store.create("long", None, "ada")["id"]
    store.append(set_id, 1, JUDGE, judge(names[:13], names[13:]), "ada")
    orders = [
        [one["name"] for one in store.begin_review(set_id, by)["entities"]] for by in ("bob", "eve", "bob")
    ]
    assert orders[0] == orders[2] != orders[1]
    assert set(orders[0][:13]) != set(names[:13])


def test_what_cannot_be_is_refused(store: ReviewStore, set_id: str) -> None:
    empty = store.create("empty", None, "ada")["id"]
    for wrong, call in {
        "say who you are": lambda: store.begin_review(set_id, ""),
        "nothing to judge": lambda: store.begin_review(empty, "bob"),
        "begun no review in round 1": lambda: store.mark_review(set_id, "eve", 1, [], [], [], True),
        "has no blind review": lambda: store.withdraw_review(set_id, "eve"),
    }.items():
        with pytest.raises(SetChangeError, match=wrong):
            call()
    store.begin_review(set_id, "bob")
    with pytest.raises(SetChangeError, match="'z' is none of the entities"):
        store.mark_review(set_id, "bob", 1, ["a", "z"], [], [], False)
    review(store, set_id, "bob", "a", "")
    with pytest.raises(SetChangeError, match="is done"):
        review(store, set_id, "bob", "b", "")
    for call in (
        lambda: store.begin_review("0" * 32, "bob"),
        lambda: store.mark_review("0" * 32, "bob", 1, [], [], [], True),
        lambda: store.withdraw_review("0" * 32, "bob"),
        lambda: store.reviews("0" * 32, 1),
    ):
        with pytest.raises(UnknownSetError):
            call()


def test_a_review_is_withdrawn_and_with_the_last_one_the_round(store: ReviewStore, set_id: str) -> None:
    review(store, set_id, "bob", "abc", "d")
    store.begin_review(set_id, "gone")
    review(store, set_id, "eve", "abc", "d")
    assert store.reviews(set_id, 1)["agreement"] is None
    left = store.withdraw_review(set_id, "gone")
    assert [one["name"] for one in left["reviewers"]] == ["bob", "eve"]
    assert left["agreement"]["agreed"] == 4, "the one that nobody ended kept the others waiting"
    with pytest.raises(SetChangeError, match="no blind review"):
        store.withdraw_review(set_id, "bob")
    store.begin_review(set_id, "bob")
    assert store.withdraw_review(set_id, "bob")["round"] == 1


def test_with_its_set_a_review_goes(store: ReviewStore, set_id: str, tmp_path: Path) -> None:
    review(store, set_id, "bob", "abc", "d")
    store.delete(set_id, 2)
    for table in ("rounds", "reviews", "marks"):
        assert store._db.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (0,)


def test_a_file_of_before_there_were_reviews_is_taken(tmp_path: Path) -> None:
    before = SetStore(tmp_path / "old.sqlite")
    set_id = before.create("s", None, "ada")["id"]
    before.append(set_id, 1, JUDGE, judge("ab"), "ada")
    before.close()
    now = ReviewStore(tmp_path / "old.sqlite")
    review(now, set_id, "bob", "a", "b")
    now.close()
    older = SetStore(tmp_path / "old.sqlite")
    older.delete(set_id, 2)
    older.close()
