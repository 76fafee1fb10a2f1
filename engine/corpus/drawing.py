"""Draw a few rows of each entity by a hash, so that a corpus that grows keeps what was drawn."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt


def draw_of(*made_of: str) -> int:
    """Return the number by which a row is drawn, 64 bits of a hash: the smallest of an entity are kept.

    It depends on nothing else, so that a text that grows keeps what was drawn, but for what the new draws
    displace.

    Args:
        made_of: what makes the row another than every row of its entity, such as its sentence.
    """
    return int.from_bytes(blake2b("\0".join(made_of).encode(), digest_size=8).digest(), "little")


def drawn(
    entities: npt.NDArray[np.int32], draws: npt.NDArray[np.uint64], per_entity: int | None
) -> tuple[npt.NDArray[np.bool_], int]:
    """Return which mentions are kept, bool [n], and how many are a second time the same.

    Args:
        entities: of the mentions, [n]; those of undecided ones are below 0, and are not kept.
        draws: see :func:`draw_of`, [n]. Equal ones of an entity are the same sentence.
        per_entity: mentions of an entity that are kept, those with the smallest draws; None: all.
    """
    order = np.lexsort((draws, entities))
    ordered, numbers = entities[order], draws[order]
    decided = ordered >= 0
    first = np.ones(len(order), np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]) | (numbers[1:] != numbers[:-1])
    unique = np.flatnonzero(first & decided)
    rank = np.arange(len(unique)) - np.searchsorted(ordered[unique], ordered[unique])
    kept = np.zeros(len(order), np.bool_)
    kept[order[unique[rank < per_entity] if per_entity is not None else unique]] = True
    return kept, int((~first & decided).sum())


def ranks_within(groups: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return how many rows of the same group stand before each one, [n]."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    found = np.empty(len(groups), np.int64)
    found[order] = np.arange(len(groups)) - np.searchsorted(ordered, ordered)
    return found
