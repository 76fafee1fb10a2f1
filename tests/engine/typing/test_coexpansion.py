"""Co-expansion: which negative seeds a type gets, and which type an entity of several lists gets."""

from __future__ import annotations

import numpy as np
import pytest

from engine.typing.coexpansion import NEAR, LabelledEntity, Shares, give_types, list_length, negative_seeds

SEEDS = {"metal": (0, 1), "city": (2, 3), "person": (4,)}


def test_negative_seeds_are_those_of_the_other_types() -> None:
    found = negative_seeds(SEEDS)
    assert {label: set(ids) for label, ids in found.items()} == {
        "metal": {2, 3, 4},
        "city": {0, 1, 4},
        "person": {0, 1, 2, 3},
    }
    assert negative_seeds(SEEDS, 0) == {"metal": (), "city": (), "person": ()}


def test_what_is_drawn_has_as_many_of_each_type() -> None:
    seeds = {label: tuple(range(10 * place, 10 * place + 9)) for place, label in enumerate("abcde")}
    for draw in range(5):
        found = negative_seeds(seeds, 10, draw)
        for place, label in enumerate("abcde"):
            counts = np.bincount([one // 10 for one in found[label]], minlength=5).tolist()
            assert sorted(counts) == [0, 2, 2, 3, 3]
            assert counts[place] == 0
    assert negative_seeds(seeds, 10, 3) == negative_seeds(seeds, 10, 3)
    assert negative_seeds(seeds, 10, 3) != negative_seeds(seeds, 10, 4)


def test_seeds_of_a_type_below_are_not_negative() -> None:
    found = negative_seeds({"/person": (0,), "/person/artist": (1,), "/place": (2,)})
    assert found["/person"] == (2,)
    assert set(found["/person/artist"]) == {0, 2}


def test_an_entity_goes_to_the_list_where_it_ranks_best() -> None:
    lists = {
        #        rank 1   2   3   4   5   6
        "metal": [10, 11, 12, 13, 14, 15],
        "city": [11, 20, 21, 2, 14, 13, 10],  # its own seed 2 is no rank: 14 is 4th, 13 5th, 10 6th
        "person": [30, 3, 12],  # city's seed 3 is no rank: 12 is 2nd
    }
    found, shares = give_types(lists, SEEDS, top=4)
    # 10: 1/1 in metal against 1/6. 11: 1/1 in city against 1/2. 12: 1/2 in person against 1/3. 13: 1/4 in
    # metal and 1/5 in city, a near tie. 14: fifth in metal and fourth in city, likewise. 15 is not among
    # the first four.
    assert found == [
        LabelledEntity(0, "metal", 0, 1),
        LabelledEntity(1, "metal", 0, 1),
        LabelledEntity(10, "metal", 1, 1),
        LabelledEntity(2, "city", 0, 1),
        LabelledEntity(3, "city", 0, 1),
        LabelledEntity(11, "city", 1, 1),
        LabelledEntity(20, "city", 2, 1 / 2),
        LabelledEntity(21, "city", 3, 1 / 3),
        LabelledEntity(4, "person", 0, 1),
        LabelledEntity(30, "person", 1, 1),
        LabelledEntity(12, "person", 2, 1 / 2),
    ]
    assert shares == {
        "metal": Shares(seeds=2, kept=1, to_others=2, ties=1),
        "city": Shares(seeds=2, kept=3, to_others=0, ties=1),
        "person": Shares(seeds=1, kept=2, to_others=0, ties=0),
    }


@pytest.mark.parametrize("top", [1, 5, 17, 40])
def test_it_is_a_plain_comparison_of_reciprocal_ranks(top: int) -> None:
    random = np.random.default_rng(top)
    seeds = {label: (place,) for place, label in enumerate("abc")}
    full = {label: random.permutation(np.arange(3, 63)).tolist() for label in seeds}
    found, shares = give_types({label: ids[: list_length(top)] for label, ids in full.items()}, seeds, top)
    expected = {}
    for entity in range(3, 63):
        reciprocal = {label: 1 / (1 + ids.index(entity)) for label, ids in full.items()}
        best = max(reciprocal, key=reciprocal.__getitem__)
        second = max(value for label, value in reciprocal.items() if label != best)
        if reciprocal[best] >= 1 / top and second < NEAR * reciprocal[best] - 1e-12:
            expected[entity] = best
    assert {one.entity: one.type for one in found if one.rank} == expected
    assert sum(one.kept for one in shares.values()) == len(expected)
    for one in shares.values():
        assert one.kept + one.to_others + one.ties == top
