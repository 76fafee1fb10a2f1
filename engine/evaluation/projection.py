"""Lay the entities of several ultra-fine-grained classes on a plane (UltraWiki, figures 11 and 12)."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from engine.queries.formats import LabelledQuery

MOST_GROUPS = 6
MOST_ENTITIES = 400
SEED = 13


def groups(queries: Sequence[LabelledQuery]) -> tuple[str, dict[str, list[int]]] | None:
    """Return the class and attribute that most queries ask for, and the entities of its values.

    Entities are those that queries name as having one value of the attribute and no other condition: truth
    and seeds. One that has two values of the attribute is left out. None: no query says its attributes.
    """
    by_kind: defaultdict[tuple[str, str], list[tuple[str, LabelledQuery]]] = defaultdict(list)
    for q in queries:
        if len(q.query.positive_attributes) == 1 and len(q.query.positive_attributes[0][1]) == 1:
            ((attribute, (value,)),) = q.query.positive_attributes
            by_kind[q.label, attribute].append((value, q))
    several = {kind: own for kind, own in by_kind.items() if len({value for value, _ in own}) > 1}
    if not several:
        return None
    label, attribute = min(several, key=lambda kind: (-len(several[kind]), kind))
    found: defaultdict[str, set[int]] = defaultdict(set)
    for value, q in several[label, attribute]:
        found[value] |= q.positive.ids | set(q.query.positive)
    largest = sorted(found, key=lambda value: (-len(found[value]), value))[:MOST_GROUPS]
    counts = Counter(entity for value in largest for entity in found[value])
    each = MOST_ENTITIES // len(largest)
    kept = {v: sorted(e for e in found[v] if counts[e] == 1)[:each] for v in largest}
    return f"{label}: {attribute}", {value: ids for value, ids in kept.items() if ids}


def plane(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return vectors on a plane by t-SNE, which begins with their principal components, float64 [n, 2]."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, max(1.0, (len(vectors) - 1) / 3))
    return np.asarray(
        TSNE(2, init="pca", perplexity=perplexity, random_state=SEED).fit_transform(vectors), np.float64
    )


def named(found: Mapping[str, Sequence[int]]) -> tuple[list[int], list[str]]:
    """Return all entities, and of each its group."""
    pairs = [(entity, group) for group, ids in found.items() for entity in ids]
    return [entity for entity, _ in pairs], [group for _, group in pairs]
