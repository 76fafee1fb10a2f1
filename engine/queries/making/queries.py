"""Draw queries of an ultra-fine class: seeds of both kinds, and the truth without them."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, NamedTuple

from engine.queries.making.definitions import Condition, UltraFineClass
from engine.storage.parts import content_key


class SeedNumbers(NamedTuple):
    """How many seeds of each kind a query has: between these, drawn."""

    least: int = 3
    most: int = 5


def draw_queries(
    ultra_fine: UltraFineClass, number: int, seeds: SeedNumbers, seed: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Return queries as UltraWiki's files have them, but for ``query_id`` and ``group_id``.

    Positive seeds are drawn from P without N, negative ones from N without P. ``pos_gt`` is P without N and
    without the seeds, ``neg_gt`` N without the seeds; both sorted by name. At least one entity is left to
    find.

    Args:
        ultra_fine: the class.
        number: of queries.
        seeds: of each kind.
        seed: with the class' definition it decides what is drawn: other classes do not change it.
        names: of the entities.
    """
    definition = repr((ultra_fine.fine, ultra_fine.positive, ultra_fine.negative))
    random = Random(content_key(str(seed), definition))
    positive_only, negative_only = ultra_fine.positive_only, ultra_fine.negative_only
    found = []
    for _ in range(number):
        positive, negative = (
            random.sample(some, random.randint(seeds.least, min(seeds.most, most)))
            for some, most in ((positive_only, len(positive_only) - 1), (negative_only, len(negative_only)))
        )
        found.append(
            {
                "pos_seeds": [names[entity] for entity in positive],
                "neg_seeds": [names[entity] for entity in negative],
                "pos_gt": sorted(names[entity] for entity in set(positive_only) - set(positive)),
                "neg_gt": sorted(
                    names[entity] for entity in set(ultra_fine.negative_entities) - set(negative)
                ),
                "pos_attrs": as_attributes(ultra_fine.positive),
                "neg_attrs": as_attributes(ultra_fine.negative),
                "class": ultra_fine.fine,
            }
        )
    return found


def as_attributes(condition: Condition) -> dict[str, str]:
    """Return a condition as queries have it."""
    return dict(condition)
