"""Count what queries that were made are like: UltraWiki's tables 1, 10 and 11, overlap, agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.queries.making.definitions import FineClass, UltraFineClass

COMPARED = 300
"""Ultra-fine classes of a fine class whose overlap is looked at."""


def summary(
    fine: Sequence[FineClass], made: Sequence[UltraFineClass], queries: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the statistics.

    Args:
        fine: the fine classes.
        made: the ultra-fine ones.
        queries: of these.
    """
    by_counts = Counter(one.attribute_counts for one in made)
    by_fine = Counter(one.fine for one in made)
    seeds = {kind: [len(query[f"{kind}_seeds"]) for query in queries] for kind in ("pos", "neg")}
    return {
        "fine_classes": len(fine),
        "ultra_fine_classes": len(made),
        "queries": len(queries),
        "positive_entities": _mean(len(one.positive_entities) for one in made),
        "negative_entities": _mean(len(one.negative_entities) for one in made),
        "seeds": {kind: [min(some), max(some)] for kind, some in seeds.items() if some},
        "truth": {kind: _mean(len(query[f"{kind}_gt"]) for query in queries) for kind in ("pos", "neg")},
        "same_attributes": sum([a for a, _ in one.positive] == [a for a, _ in one.negative] for one in made),
        "attribute_counts": {f"{m}, {n}": number for (m, n), number in sorted(by_counts.items())},
        "by_fine_class": [
            {
                "class": one.name,
                "entities": len(one.members),
                "ultra_fine_classes": by_fine[one.name],
                "attributes": one.attribute_names,
            }
            for one in fine
        ],
        "intersecting": intersecting(made),
    }


def _mean(values: Any) -> float:
    numbers = list(values)
    return round(float(np.mean(numbers)), 2) if numbers else 0.0


def intersecting(made: Sequence[UltraFineClass]) -> float:
    """Return the share of ultra-fine classes whose positive entities another one has some of."""
    owners: dict[int, set[int]] = {}
    for place, one in enumerate(made):
        for entity in one.positive_entities:
            owners.setdefault(entity, set()).add(place)
    shared = {place for places in owners.values() if len(places) > 1 for place in places}
    return round(len(shared) / len(made), 4) if made else 0.0


def fleiss_kappa(counts_IC: npt.NDArray[np.int64]) -> float:
    """Return Fleiss' kappa: agreement of annotators, less what chance brings, as a part of what could be.

    Each item was put into a category by as many annotators. 1 is full agreement; where all items are in one
    category, chance explains all, and the kappa is 1 as well.

    Args:
        counts_IC: how many annotators put an item into a category, [items, categories].

    Raises:
        ValueError: fewer than two annotators, or not as many for each item.
    """
    annotators = counts_IC.sum(axis=1)
    if not len(annotators) or annotators[0] < 2 or (annotators != annotators[0]).any():
        raise ValueError("every item needs as many annotators, two at least")
    n = int(annotators[0])
    agreement_I = ((counts_IC**2).sum(axis=1) - n) / (n * (n - 1))
    chance = float(((counts_IC.sum(axis=0) / counts_IC.sum()) ** 2).sum())
    return 1.0 if chance == 1 else (float(agreement_I.mean()) - chance) / (1 - chance)


def cohen_kappa(counts_CC: npt.NDArray[np.int64]) -> float:
    """Return Cohen's kappa: agreement of two annotators, less what chance brings, as a part of what could be.

    Chance is that each puts as many items into a category as they did, independently. 1 is full agreement,
    also where both put all items into one category; 0 is no more than chance brings.

    Args:
        counts_CC: items by the category of either annotator, [categories, categories].

    Raises:
        ValueError: no item.
    """
    items = int(counts_CC.sum())
    if not items:
        raise ValueError("no item was judged by both")
    agreement = float(np.trace(counts_CC)) / items
    chance = float(counts_CC.sum(axis=0) @ counts_CC.sum(axis=1)) / items**2
    return 1.0 if chance == 1 else (agreement - chance) / (1 - chance)


def similarities(
    made: Sequence[UltraFineClass], vectors_ND: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the cosines between classes' mean vectors of their positive entities (figure 4), [U, U]."""
    means_UD = np.stack([vectors_ND[list(one.positive_entities)].mean(axis=0) for one in made])
    means_UD /= np.maximum(np.linalg.norm(means_UD, axis=1, keepdims=True), 1e-12)
    found: npt.NDArray[np.float32] = means_UD @ means_UD.T
    return found


def overlap(made: Sequence[UltraFineClass]) -> float:
    """Return the share of entities that two classes of a fine class have in common (Jaccard), in the mean.

    Of a fine class with more than :data:`COMPARED` ultra-fine ones so many are compared, evenly spaced.
    """
    by_fine: dict[str, list[set[int]]] = {}
    for one in made:
        by_fine.setdefault(one.fine, []).append(set(one.positive_entities))
    shares = [
        len(a & b) / len(a | b)
        for some in by_fine.values()
        for a, b in combinations(some[:: -(-len(some) // COMPARED)], 2)
    ]
    return round(float(np.mean(shares)), 4) if shares else 0.0
