"""Rank class names, and tell which entities belong to another class (CGExpan, sections 3.2 and 3.3).

Knows nothing of language models: names and entities are compared by nearness, a number for each pair
(:meth:`engine.retrieval.mention_states.MentionStates.nearness`). Shape letters: E entities, C class names.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def positive_name(names: Sequence[str], nearness_EC: Floats, eligible: Collection[str]) -> str:
    """Return the class name with the largest sum over entities of 1 / its rank, ties by place.

    Args:
        names: class names.
        nearness_EC: of each entity of the set to them.
        eligible: the names that are ranked: those that were generated often.
    """
    places = [place for place, name in enumerate(names) if name in eligible]
    order_EC = np.argsort(-nearness_EC[:, places], axis=1, kind="stable")
    sums_C = np.zeros(len(places))
    for order in order_EC:
        sums_C[order] += 1 / np.arange(1, len(places) + 1)
    return names[places[int(np.argmax(np.round(sums_C, 12)))]]


def negative_names(names: Sequence[str], nearness_EC: Floats, positive: str, margin: int) -> set[str]:
    """Return the names that every seed is farther from than from the positive name, by a margin.

    Considered are names of one word that do not end the positive one. A seed ranks these and the positive
    one; negative are those more than ``margin`` places below it for every seed.

    Args:
        names: class names.
        nearness_EC: of each seed of the query to them; without a seed no name is negative.
        positive: one of them.
        margin: places in between.
    """
    single = [name for name in names if " " not in name and not positive.endswith(name)]
    place = {name: i for i, name in enumerate(names)}
    found = set(single) if len(nearness_EC) else set()
    for nearness_C in nearness_EC:
        ranked = sorted([positive, *single], key=lambda name: -nearness_C[place[name]])
        found &= set(ranked[ranked.index(positive) + 1 + margin :])
    return found


def of_other_classes(nearness_PCE: Floats, most: int = 2) -> npt.NDArray[np.bool_]:
    """Return which entities are nearer to a negative name than to the positive one, bool [E].

    Args:
        nearness_PCE: by pattern, by name (the positive one first), by entity.
        most: patterns in which another name may be the nearest.
    """
    wrong_E = (nearness_PCE.argmax(axis=1) != 0).sum(axis=0)
    return np.asarray(wrong_E > most)


def often(counts: Mapping[str, int], queries: int, share: float) -> set[str]:
    """Return the names that were generated for so large a share of the queries, or most often of all."""
    least = min(queries * share, max(counts.values(), default=0))
    return {name for name, count in counts.items() if count >= least}
