"""Classes and queries made of attributes: every seed and target fulfils its definition; counts by hand."""

from __future__ import annotations

import json
from collections import Counter
from itertools import combinations, product
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.queries.making.definitions import (
    PAPER_SHARES,
    Condition,
    FineClass,
    conditions,
    quotas,
    ultra_fine_classes,
)
from engine.queries.making.queries import SeedNumbers, draw_queries
from engine.queries.making.statistics import (
    cohen_kappa,
    fleiss_kappa,
    intersecting,
    overlap,
    similarities,
    summary,
)

VALUES = st.lists(st.sampled_from("xyz"), min_size=1, max_size=2, unique=True)
ATTRIBUTES = st.fixed_dictionaries({}, optional={"a": VALUES, "b": VALUES, "c": VALUES, "d": st.just([])})


@st.composite
def fine(draw: st.DrawFn) -> FineClass:
    attributes = draw(st.lists(ATTRIBUTES, min_size=1, max_size=40))
    first = draw(st.integers(0, 5))
    return FineClass("things", [first + 2 * i for i in range(len(attributes))], attributes)


def fulfils(fine: FineClass, entity: int, condition: Condition) -> bool:
    own = fine.attributes[fine.members.index(entity)]
    return all(value in own.get(name, ()) for name, value in condition)


@given(fine(), st.integers(1, 3), st.integers(1, 6))
def test_conditions_are_those_that_enough_fulfil_and_every_attribute_narrows(
    one: FineClass, most: int, least: int
) -> None:
    found = conditions(one, most, least)
    expected = {}
    for size in range(1, most + 1):
        for names in combinations("abcd", size):
            for values in product("xyz", repeat=size):
                condition = tuple(zip(names, values, strict=True))
                who = [e for e in one.members if fulfils(one, e, condition)]
                wider = [tuple(c for c in condition if c != left) for left in condition] if size > 1 else []
                narrower = all(len([e for e in one.members if fulfils(one, e, w)]) > len(who) for w in wider)
                if len(who) >= least and narrower:
                    expected[condition] = who
    assert set(found.conditions) == set(expected)
    for condition, fulfilled in zip(found.conditions, found.fulfilled_CM, strict=True):
        assert [one.members[i] for i in np.flatnonzero(fulfilled).tolist()] == expected[condition]


@given(fine(), st.integers(1, 12), st.integers(0, 9))
def test_every_seed_and_target_fulfils_its_definition(one: FineClass, number: int, seed: int) -> None:
    made = ultra_fine_classes(one, number, Random(seed), least=4, seeds=2)
    assert len(made) <= number
    assert len(set(made)) == len(made)
    names = [f"entity {i}" for i in range(max(one.members) + 1)]
    for ultra_fine in made:
        assert ultra_fine.positive != ultra_fine.negative
        assert all(fulfils(one, e, ultra_fine.positive) for e in ultra_fine.positive_entities)
        assert all(fulfils(one, e, ultra_fine.negative) for e in ultra_fine.negative_entities)
        others = set(one.members) - set(ultra_fine.positive_entities)
        assert not any(fulfils(one, e, ultra_fine.positive) for e in others)
        assert min(len(ultra_fine.positive_entities), len(ultra_fine.negative_entities)) >= 4
        for query in draw_queries(ultra_fine, 3, SeedNumbers(2, 3), seed, names):
            ids = {key: [names.index(n) for n in query[key]] for key in KEYS}
            assert all(2 <= len(set(ids[key])) == len(ids[key]) <= 3 for key in KEYS[:2])
            assert set(ids["pos_seeds"]) | set(ids["pos_gt"]) == set(ultra_fine.positive_only)
            assert set(ids["neg_seeds"]) | set(ids["neg_gt"]) == set(ultra_fine.negative_entities)
            assert not set(ids["pos_seeds"]) & set(ids["pos_gt"])
            assert not set(ids["neg_seeds"]) & {*ids["neg_gt"], *ultra_fine.positive_entities}
            assert query["pos_gt"]
            assert query["pos_gt"] == sorted(query["pos_gt"])
            assert tuple(query["neg_attrs"].items()) == ultra_fine.negative


KEYS = ("pos_seeds", "neg_seeds", "pos_gt", "neg_gt")


@given(fine(), st.integers(0, 9))
def test_the_same_seed_gives_the_same(one: FineClass, seed: int) -> None:
    names = [f"entity {i}" for i in range(max(one.members) + 1)]

    def made() -> str:
        found = ultra_fine_classes(one, 5, Random(seed), least=4, seeds=2)
        return json.dumps([draw_queries(u, 2, SeedNumbers(2, 3), seed, names) for u in found])

    assert made() == made()


def test_what_some_numbers_of_attributes_lack_the_others_make_up() -> None:
    there = dict.fromkeys(PAPER_SHARES, 100)
    assert quotas(26, PAPER_SHARES, there) == {(1, 1): 24, (1, 2): 0, (2, 1): 1, (2, 2): 1, (3, 3): 0}
    assert quotas(26, PAPER_SHARES, {**there, (1, 1): 3}) == {
        (1, 1): 3,
        **{(1, 2): 5, (2, 1): 9, (2, 2): 7, (3, 3): 2},
    }
    assert quotas(1000, PAPER_SHARES, {**there, (3, 3): 0}) == {**there, (3, 3): 0}
    assert quotas(5, {(1, 1): 1}, {(1, 1): 0}) == {(1, 1): 0}


@given(st.integers(0, 400), st.lists(st.integers(0, 60), min_size=5, max_size=5))
def test_quotas_take_as_many_as_there_are(number: int, have: list[int]) -> None:
    there = dict(zip(PAPER_SHARES, have, strict=True))
    taken = quotas(number, PAPER_SHARES, there)
    assert sum(taken.values()) == min(number, sum(have))
    assert all(0 <= taken[counts] <= there[counts] for counts in there)


def sample() -> FineClass:
    """Nine red, seven blue; of each half are old."""
    attributes = [{"colour": ["red"], "age": ["old" if i % 2 else "new"]} for i in range(9)]
    attributes += [{"colour": ["blue"], "age": ["old" if i % 2 else "new"]} for i in range(7)]
    return FineClass("cars", range(16), attributes)


def test_statistics_counted_by_hand() -> None:
    """red 0-8, blue 9-15; old 1 3 5 7 and 10 12 14, new the other nine."""
    made = ultra_fine_classes(sample(), 100, Random(0))
    # Of two of a colour and an age neither leaves six of the other; colours are told apart, and ages.
    assert [(one.positive, one.negative) for one in made] == [
        ((("age", "new"),), (("age", "old"),)),
        ((("age", "old"),), (("age", "new"),)),
        ((("colour", "blue"),), (("colour", "red"),)),
        ((("colour", "red"),), (("colour", "blue"),)),
    ]
    assert [len(one.positive_entities) for one in made] == [9, 7, 7, 9]
    queries = [
        q for one in made for q in draw_queries(one, 3, SeedNumbers(), 13, [f"c{i}" for i in range(16)])
    ]
    told = summary([sample()], made, queries)
    assert told["ultra_fine_classes"] == 4
    assert told["queries"] == 12
    assert told["positive_entities"] == told["negative_entities"] == 8.0
    assert told["attribute_counts"] == {"1, 1": 4}
    assert told["same_attributes"] == 4
    assert told["intersecting"] == intersecting(made) == 1.0
    assert told["by_fine_class"] == [
        {"class": "cars", "entities": 16, "ultra_fine_classes": 4, "attributes": ["age", "colour"]}
    ]
    seeds = Counter(len(q["pos_seeds"]) for q in queries)
    assert set(seeds) <= {3, 4, 5}
    assert told["truth"]["pos"] == pytest.approx(8 - sum(n * k for n, k in seeds.items()) / 12, abs=0.01)
    # new and red share 5 of 13, new and blue 4 of 12, old and red 4 of 12, old and blue 3 of 11.
    assert overlap(made) == pytest.approx((5 / 13 + 4 / 12 + 4 / 12 + 3 / 11) / 6, abs=1e-4)


def test_agreement_of_a_published_example() -> None:
    """Ten subjects, five categories, fourteen raters: 0.210, as Wikipedia's page on the kappa has it."""
    counts = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]]
    counts += [[7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    assert fleiss_kappa(np.array(counts)) == pytest.approx(0.210, abs=5e-4)


def test_agreement_by_hand() -> None:
    """Three items, four annotators, two categories."""
    counts = np.array([[4, 0], [2, 2], [1, 3]])
    agreement = (12 / 12 + 4 / 12 + 6 / 12) / 3
    chance = (7 / 12) ** 2 + (5 / 12) ** 2
    assert fleiss_kappa(counts) == pytest.approx((agreement - chance) / (1 - chance))
    assert fleiss_kappa(np.array([[3, 0], [0, 3]])) == 1
    assert fleiss_kappa(np.array([[3], [3]])) == 1
    with pytest.raises(ValueError, match="as many annotators"):
        fleiss_kappa(np.array([[2, 0], [1, 0]]))


def test_agreement_of_two() -> None:
    """Fifty applications, 20 granted by both, 15 by neither: 0.4, as Wikipedia's page on the kappa has it."""
    assert cohen_kappa(np.array([[20, 5], [10, 15]])) == pytest.approx(0.4)
    assert cohen_kappa(np.array([[45, 15], [25, 15]])) == pytest.approx(0.1304, abs=5e-5)
    assert cohen_kappa(np.array([[7, 0], [0, 3]])) == cohen_kappa(np.array([[7, 0], [0, 0]])) == 1
    assert cohen_kappa(np.array([[0, 5], [5, 0]])) == -1
    assert cohen_kappa(np.array([[5, 5], [0, 0]])) == 0
    with pytest.raises(ValueError, match="no item"):
        cohen_kappa(np.zeros((2, 2), np.int64))


def test_classes_are_as_alike_as_their_mean_vectors() -> None:
    made = ultra_fine_classes(sample(), 100, Random(0))
    vectors = np.zeros((16, 2), np.float32)
    vectors[:9, 0], vectors[9:, 1] = 1, 1  # red and blue are opposite axes
    found = similarities(made, vectors)
    assert np.diag(found) == pytest.approx([1] * 4)
    assert found[2, 3] == pytest.approx(0)
    new = np.array([5 / 9, 4 / 9])
    assert found[0, 3] == pytest.approx(new[0] / np.linalg.norm(new))
