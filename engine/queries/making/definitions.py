"""Define ultra-fine classes: what a fine class' entities must have, and what they must not.

UltraWiki §4.1, step 4: of a fine class' attributes m are positive and n negative, and each is given a value.
The positive entities are those with all positive values, the negative ones those with all negative values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Attributes = Mapping[str, Sequence[str]]

Condition = tuple[tuple[str, str], ...]
"""Attributes with a value each, sorted by name: an entity fulfils it that has all of them."""

AttributeCounts = tuple[int, int]
"""Numbers of positive and of negative attributes."""

PAPER_SHARES: Mapping[AttributeCounts, int] = {(1, 1): 238, (1, 2): 5, (2, 1): 9, (2, 2): 7, (3, 3): 2}
"""UltraWiki's ultra-fine classes by numbers of attributes (table 10)."""


@dataclass(frozen=True)
class FineClass:
    """A fine class.

    Args:
        name: of the class.
        members: entities.
        attributes: of each member, ``{attribute: [value, …]}``.
    """

    name: str
    members: Sequence[int]
    attributes: Sequence[Attributes]

    @property
    def attribute_names(self) -> list[str]:
        """The attributes that any member has, sorted."""
        return sorted({name for one in self.attributes for name in one})


class UltraFineClass(NamedTuple):
    """An ultra-fine class.

    Args:
        fine: name of its fine class.
        positive, negative: what positive and negative entities have.
        positive_entities: P, sorted.
        negative_entities: N, sorted.
    """

    fine: str
    positive: Condition
    negative: Condition
    positive_entities: tuple[int, ...]
    negative_entities: tuple[int, ...]

    @property
    def attribute_counts(self) -> AttributeCounts:
        """Its numbers of attributes."""
        return len(self.positive), len(self.negative)

    @property
    def positive_only(self) -> list[int]:
        """P without N: what an expansion must find."""
        return sorted(set(self.positive_entities) - set(self.negative_entities))

    @property
    def negative_only(self) -> list[int]:
        """N without P: what an expansion must not find, and what negative seeds are drawn from."""
        return sorted(set(self.negative_entities) - set(self.positive_entities))


class Conditions(NamedTuple):
    """The conditions that enough members of a class fulfil, and who does, bool [conditions, members]."""

    conditions: list[Condition]
    fulfilled_CM: npt.NDArray[np.bool_]


def conditions(fine: FineClass, most: int, least: int) -> Conditions:
    """Return the conditions of up to ``most`` attributes that at least ``least`` members fulfil.

    Of conditions that more attributes do not narrow, the one with the fewest is there.
    """
    found: dict[Condition, list[int]] = {}
    for place, attributes in enumerate(fine.attributes):
        names = sorted(name for name, values in attributes.items() if values)
        for size in range(1, most + 1):
            for chosen in combinations(names, size):
                for values in product(*(dict.fromkeys(attributes[name]) for name in chosen)):
                    found.setdefault(tuple(zip(chosen, values, strict=True)), []).append(place)
    kept = [one for one in sorted(found, key=lambda c: (len(c), c)) if len(found[one]) >= least]
    narrow = [one for one in kept if _is_narrower(one, found)]
    fulfilled_CM = np.zeros((len(narrow), len(fine.members)), np.bool_)
    for row, one in enumerate(narrow):
        fulfilled_CM[row, found[one]] = True
    return Conditions(narrow, fulfilled_CM)


def _is_narrower(condition: Condition, found: Mapping[Condition, Sequence[int]]) -> bool:
    """Return whether each attribute of a condition leaves entities out."""
    if len(condition) == 1:
        return True
    fewer = (condition[:place] + condition[place + 1 :] for place in range(len(condition)))
    return all(len(found[one]) > len(found[condition]) for one in fewer)


def ultra_fine_classes(
    fine: FineClass,
    number: int,
    random: Random,
    least: int = 6,
    seeds: int = 3,
    shares: Mapping[AttributeCounts, int] = PAPER_SHARES,
) -> list[UltraFineClass]:
    """Return ultra-fine classes of a fine class, drawn from all that there are, and sorted.

    Args:
        fine: the class.
        number: how many at most.
        random: draws them.
        least: entities that P and N must have (the paper's n_thred), and that must be left of P without N.
        seeds: entities that must be left of N without P.
        shares: how many with so many attributes are wanted, as parts of a whole. The others make up what
            some lack.
    """
    there, fulfilled_CM = conditions(fine, max(max(counts) for counts in shares), least)
    if not there:
        return []
    sizes_C = fulfilled_CM.sum(axis=1)
    both_CC = fulfilled_CM.astype(np.int32) @ fulfilled_CM.T.astype(np.int32)
    fits_CC = (sizes_C[:, None] - both_CC >= least) & (sizes_C[None, :] - both_CC >= seeds)
    lengths_C = np.array([len(one) for one in there])
    by_counts = {}
    for m, n in shares:
        pairs = np.argwhere(fits_CC & (lengths_C == m)[:, None] & (lengths_C == n)[None, :])
        by_counts[m, n] = random.sample(pairs.tolist(), len(pairs))
    wanted = quotas(number, shares, {counts: len(pairs) for counts, pairs in by_counts.items()})
    chosen = sorted(tuple(pair) for counts, n in wanted.items() for pair in by_counts[counts][:n])

    def of(row: int) -> tuple[int, ...]:
        return tuple(sorted(fine.members[place] for place in np.flatnonzero(fulfilled_CM[row]).tolist()))

    return [UltraFineClass(fine.name, there[a], there[b], of(a), of(b)) for a, b in chosen]


def quotas(
    number: int, shares: Mapping[AttributeCounts, int], there: Mapping[AttributeCounts, int]
) -> dict[AttributeCounts, int]:
    """Return how many with so many attributes are taken, ``number`` together if there are so many.

    By largest remainders; what some lack goes to those that have more, by their shares again.
    """
    taken = dict.fromkeys(shares, 0)
    left = min(number, sum(there.values()))
    while left:
        open_ones = {counts: share for counts, share in shares.items() if taken[counts] < there[counts]}
        whole = sum(open_ones.values())
        exact = {counts: left * share / whole for counts, share in open_ones.items()}
        step = {counts: int(value) for counts, value in exact.items()}
        rest = sorted(open_ones, key=lambda counts: (step[counts] - exact[counts], counts))
        for counts in rest[: left - sum(step.values())]:
            step[counts] += 1
        for counts, n in step.items():
            taken[counts] = min(taken[counts] + n, there[counts])
        left = min(number, sum(there.values())) - sum(taken.values())
    return taken
