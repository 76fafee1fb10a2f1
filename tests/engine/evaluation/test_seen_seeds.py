from __future__ import annotations

import pytest

from engine.evaluation.seen_seeds import ListSeeds, joined, lists_read, seen_seeds_note
from engine.methods import method
from engine.queries.formats import LabelledQuery, Truth
from engine.query import Query

READ = ListSeeds("L", frozenset({(frozenset({1, 2}), frozenset({3}))}))


def query(positive: tuple[int, ...], negative: tuple[int, ...], truth: set[int]) -> LabelledQuery:
    return LabelledQuery(Query("q", positive, negative), "class", Truth(frozenset(truth)))


@pytest.mark.parametrize(
    ("name", "settings", "keys"),
    [
        ("default", {"discriminant": {"lists": "D"}}, ["D"]),
        ("default", {"discriminant": {"lists": "D"}, "contrast": {"trained": "t", "lists": "C"}}, ["C", "D"]),
        ("default", {"discriminant": {"lists": "D"}, "contrast": {"trained": "t", "lists": "D"}}, ["D"]),
        ("retexpan+contrast", {"discriminant": {"lists": "D"}, "contrast": {"lists": "C"}}, ["C"]),
        ("retexpan+contrast-conditioned", {"contrast": {"lists": "C"}}, ["C"]),
        ("retexpan", {"discriminant": {"lists": "D"}, "contrast": {"lists": "C"}}, []),
        ("default", {"contrast": {"trained": "of a version that said no more"}}, []),
        ("default", {}, []),
    ],
)
def test_a_method_reads_the_lists_of_what_it_searches(
    name: str, settings: dict[str, object], keys: list[str]
) -> None:
    assert lists_read(method(name), settings) == keys


def test_queries_that_were_mined_and_truth_that_was_a_seed_are_counted() -> None:
    note = seen_seeds_note("L", READ, [query((2, 1), (3,), {7}), query((4,), (), {1, 3, 8})])
    assert note is not None
    assert "1 of the 2 queries" in note
    assert "50 % of the true entities" in note


def test_the_same_positive_seeds_beside_other_negative_ones_are_another_query() -> None:
    note = seen_seeds_note("L", READ, [query((1, 2), (), {3})])
    assert note is not None
    assert "0 of the 1 queries" in note


def test_nothing_is_told_of_queries_that_share_nothing_with_the_lists() -> None:
    assert seen_seeds_note("L", READ, [query((4,), (5,), {6})]) is None


def test_lists_that_are_gone_are_told() -> None:
    note = seen_seeds_note("L", None, [])
    assert note is not None
    assert "lists L, which are gone" in note


def test_notes_are_joined() -> None:
    assert joined([None, "a", None, "b"]) == "a; b"
    assert joined([None]) is None
