"""Builds queries from the fact tables: positive and negative seeds with their ground truth.

A group is one pair of conditions (an ultra-fine class). Three kinds of pairs are made:
the same attribute with another value, two different attributes whose sets overlap, and the
same attribute with another value inside a shared second condition.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from itertools import permutations, product

from examples.tables import attribute_names, attributes_of, load_table

SEED = 20240229
QUERIES_PER_GROUP = 3
MIN_TRUTH = 5
MIN_SEEDS, MAX_SEEDS = 3, 5
GROUPS_OF_KIND = {"same": 5, "cross": 5, "inside": 4}

Condition = dict[str, str]
Pair = tuple[Condition, Condition]


@cache
def holders(cls: str) -> dict[tuple[str, str], set[str]]:
    """The entities of a class by attribute and value; looked up once for thousands of pairs."""
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for name, row in load_table(cls).items():
        for attr, items in attributes_of(cls, row).items():
            for value in items:
                found[attr, value].add(name)
    return dict(found)


def members(cls: str, condition: Condition) -> list[str]:
    """The entities of a class that meet every part of a condition, in table order."""
    sets = [holders(cls).get(part, set()) for part in condition.items()]
    common = set.intersection(*sets)
    return [name for name in load_table(cls) if name in common]


def value_range(cls: str) -> dict[str, list[str]]:
    """All values of every attribute of a class, sorted so that runs agree."""
    found: dict[str, set[str]] = {attr: set() for attr in attribute_names(cls)}
    for row in load_table(cls).values():
        for attr, items in attributes_of(cls, row).items():
            if attr in found:
                found[attr].update(items)
    return {attr: sorted(items) for attr, items in found.items()}


def big_enough(cls: str, pair: Pair) -> bool:
    """Whether both sides keep enough entities once the smallest seed sets are drawn."""
    pos, neg = (set(members(cls, side)) for side in pair)
    need = MIN_SEEDS + MIN_TRUTH
    return len(pos - neg) >= need and len(neg) >= need and len(neg - pos) >= MIN_SEEDS


def narrows(cls: str, attr: str, pair: Pair) -> bool:
    """Whether the shared condition cuts a quarter off both sides, or else it adds nothing."""
    return all(len(members(cls, side)) <= 0.75 * len(members(cls, {attr: side[attr]})) for side in pair)


def candidate_pairs(cls: str, kind: str) -> Iterator[Pair]:
    """Every pair of conditions of one kind, whatever its size."""
    ranges = value_range(cls)
    if kind == "same":
        for attr, items in ranges.items():
            yield from (({attr: p}, {attr: n}) for p, n in permutations(items, 2))
        return
    for one, two in permutations(ranges, 2):
        if kind == "cross":
            for p, n in product(ranges[one], ranges[two]):
                if set(members(cls, {one: p})) & set(members(cls, {two: n})):
                    yield {one: p}, {two: n}
        else:
            for (p, n), c in product(permutations(ranges[one], 2), ranges[two]):
                pair = ({one: p, two: c}, {one: n, two: c})
                if narrows(cls, one, pair):
                    yield pair


def choose_groups(cls: str) -> list[Pair]:
    """A spread of groups: values that were used least as a positive side come first."""
    chosen: list[Pair] = []
    used: Counter[str] = Counter()
    for kind, wanted in GROUPS_OF_KIND.items():
        rng = random.Random(f"{SEED}:{cls}:{kind}")
        pool = [pair for pair in candidate_pairs(cls, kind) if big_enough(cls, pair)]
        rng.shuffle(pool)
        for _ in range(min(wanted, len(pool))):
            best = min(pool, key=lambda pair: sum(used[str(side)] for side in pair))
            pool.remove(best)
            chosen.append(best)
            used.update(str(side) for side in best)
    return chosen


def draw_seeds(rng: random.Random, pool: list[str], truth_size: int) -> list[str]:
    """Three to five seeds, fewer where the ground truth would run short."""
    most = min(MAX_SEEDS, truth_size - MIN_TRUTH)
    return sorted(rng.sample(pool, min(len(pool), rng.randint(MIN_SEEDS, most))))


def make_query(cls: str, group: int, number: int, pair: Pair) -> dict[str, object]:
    """One query of a group with its own seeds."""
    rng = random.Random(f"{SEED}:{cls}:{group}:{number}")
    pos, neg = (members(cls, side) for side in pair)
    wanted = [name for name in pos if name not in neg]
    pos_seeds = draw_seeds(rng, wanted, len(wanted))
    neg_seeds = draw_seeds(rng, [name for name in neg if name not in pos], len(neg))
    return {
        "group_id": group,
        "query_id": f"{cls}-{group:03d}-{number}",
        "pos_seeds": pos_seeds,
        "neg_seeds": neg_seeds,
        "pos_gt": [name for name in wanted if name not in pos_seeds],
        "neg_gt": [name for name in neg if name not in neg_seeds],
        "pos_attrs": pair[0],
        "neg_attrs": pair[1],
    }


def make_queries(cls: str) -> list[dict[str, object]]:
    """All queries of a class."""
    return [
        make_query(cls, group, number, pair)
        for group, pair in enumerate(choose_groups(cls))
        for number in range(QUERIES_PER_GROUP)
    ]
