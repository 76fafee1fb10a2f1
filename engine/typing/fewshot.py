"""Draw the few examples of each type that a few-shot training has."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.errors import UserError
from engine.typing.labels import finest
from engine.typing.mentions import TypedMention


def draw_examples(mentions: Sequence[TypedMention], examples: int, seed: int) -> list[TypedMention]:
    """Return so many mentions of each type, in the order of the file.

    A mention is an example of its finest types: one of ``/person/artist`` is none of ``/person``.

    Args:
        mentions: to draw from.
        examples: of each type, at least 1. A type that has fewer gives all.
        seed: of the draw.

    Raises:
        UserError: no mention has a type.
    """
    by_type: dict[str, list[int]] = {}
    for place, one in enumerate(mentions):
        for label in finest(one.labels):
            by_type.setdefault(label, []).append(place)
    if not by_type:
        raise UserError("--examples: no mention has a type to draw examples of")
    random = np.random.default_rng(seed)
    drawn: set[int] = set()
    for label in sorted(by_type):
        places = by_type[label]
        drawn |= set(random.permutation(places)[:examples].tolist())
    return [mentions[place] for place in sorted(drawn)]
