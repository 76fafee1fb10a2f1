"""Expand the seeds of several types together, and give every entity to one type at most (co-expansion).

SEType (Zhang et al., 2024) takes entity set expansion as the bridge to fine-grained entity typing: a few
seeds of each type are expanded, and what is found labels mentions to train a typing model on. Types compete:
each one's list is expanded with the other types' seeds as negative ones, and an entity that stands in
several lists goes to the one where it ranks best.

Works on entity ids, whatever expands them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from engine.query import MAX_SEEDS
from engine.typing.labels import ancestors

NEAR = 0.8
"""Share of an entity's best reciprocal rank from which its second best is a near tie: ranks 4 and 5 are one,
4 and 6 are none."""

Seeds = Mapping[str, Sequence[int]]
"""The entity ids of each type's seeds."""


class LabelledEntity(NamedTuple):
    """An entity with the type that it was given.

    ``rank`` is its place in that type's list, from 1, and 0 for a seed; ``score`` the reciprocal rank, and 1
    for a seed.
    """

    entity: int
    type: str
    rank: int
    score: float


@dataclass
class Shares:
    """What became of a type's list: entities by their fate."""

    seeds: int = 0
    kept: int = 0
    """Besides seeds."""
    to_others: int = 0
    """Among the first ones, but better in another type's list."""
    ties: int = 0
    """Among the first ones, but as good in another type's list, or nearly: they get no type."""


def negative_seeds(seeds: Seeds, at_most: int = MAX_SEEDS, seed: int = 0) -> dict[str, tuple[int, ...]]:
    """Return each type's negative seeds: those of the other types, or a draw of them.

    The draw takes one seed of each other type, then a second one of each, and so on, in an order that is
    random within each round; so all other types are represented alike. A type below this one by its path
    (``/person/artist`` below ``/person``) is none of the others: its seeds are of this type, too.

    Args:
        seeds: of every type.
        at_most: negative seeds of a type; queries take up to :data:`MAX_SEEDS`.
        seed: of the draw, which also depends on the type's place among the types.
    """
    found = {}
    for place, label in enumerate(seeds):
        random = np.random.default_rng([seed, place])
        rounds = []
        for other, ids in seeds.items():
            if other != label and label not in ancestors(other):
                rounds += [(turn, random.random(), one) for turn, one in enumerate(random.permutation(ids))]
        found[label] = tuple(int(one) for _, _, one in sorted(rounds)[:at_most])
    return found


def list_length(top: int) -> int:
    """Return how long lists must be so that every near tie of one of the first ``top`` is seen."""
    return ceil(top / NEAR)


def give_types(
    lists: Mapping[str, Sequence[int]], seeds: Seeds, top: int
) -> tuple[list[LabelledEntity], dict[str, Shares]]:
    """Return the entities that get a type, and of each type what became of its list.

    Args:
        lists: of each type the expanded entities, best first, of :func:`list_length` if there are so many.
        seeds: of the same types, which keep their own type wherever else they stand.
        top: entities of a list that may get its type.

    Returns:
        Entities by type in the order of ``seeds``, seeds first, then by rank.
    """
    own = {entity for ids in seeds.values() for entity in ids}
    ranks: dict[int, list[tuple[int, str]]] = {}
    for label, ids in lists.items():
        others = [entity for entity in ids if entity not in own]
        for rank, entity in enumerate(others, 1):
            ranks.setdefault(entity, []).append((rank, label))
    found = {label: [LabelledEntity(one, label, 0, 1.0) for one in ids] for label, ids in seeds.items()}
    shares = {label: Shares(len(ids)) for label, ids in seeds.items()}
    for entity, places in ranks.items():
        (best, label), *rest = sorted(places)
        tie = bool(rest) and best >= NEAR * rest[0][0]
        for rank, listed in places:
            if rank > top:
                continue
            if tie:
                shares[listed].ties += 1
            elif listed == label:
                found[label].append(LabelledEntity(entity, label, rank, 1 / rank))
                shares[label].kept += 1
            else:
                shares[listed].to_others += 1
    return [one for label in found for one in sorted(found[label], key=lambda e: e.rank)], shares
