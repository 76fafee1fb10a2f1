"""Measure predicted types against true ones: strict accuracy, loose macro and loose micro P, R and F1.

Loose (Ling and Weld, 2012): a mention's precision is the share of its predicted types that are true, its
recall the share of its true types that are predicted. Macro: the means of these over mentions. Micro: of all
types of all mentions together. F1 is the harmonic mean of P and R so averaged. A mention without predicted
(true) types counts in no mean of precision (recall). All in percent.

FET sets compare with all parents of a path: ``/person/artist`` holds ``/person`` (:func:`measure_types`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.errors import UserError
from engine.typing.labels import with_ancestors

TypePair = tuple[Collection[str], Collection[str]]
"""The true types of a mention, and its predicted ones."""


class Scores(NamedTuple):
    """Precision, recall and F1, in percent."""

    precision: float
    recall: float
    f1: float


class TypingScores(NamedTuple):
    """All measures over some mentions, in percent."""

    strict: float
    macro: Scores
    micro: Scores
    mentions: int


def measure_types(pairs: Sequence[TypePair]) -> TypingScores:
    """Measure predictions, paths with all their parents.

    Args:
        pairs: true and predicted types of each mention.

    Raises:
        UserError: there is no mention.
    """
    if not pairs:
        raise UserError("no mention to measure types on")
    sets = [(set(with_ancestors(true)), set(with_ancestors(predicted))) for true, predicted in pairs]
    return TypingScores(strict_accuracy(sets), macro_scores(sets), micro_scores(sets), len(sets))


def strict_accuracy(pairs: Sequence[TypePair]) -> float:
    """Return the share of mentions whose predicted types are exactly the true ones, in percent."""
    return 100 * sum(set(true) == set(predicted) for true, predicted in pairs) / len(pairs)


def macro_scores(pairs: Sequence[TypePair]) -> Scores:
    """Return the loose macro measures."""
    precisions = [len({*true} & {*found}) / len(set(found)) for true, found in pairs if found]
    recalls = [len({*true} & {*found}) / len(set(true)) for true, found in pairs if true]
    return _scores(_mean(precisions), _mean(recalls))


def micro_scores(pairs: Sequence[TypePair]) -> Scores:
    """Return the loose micro measures."""
    hits = sum(len({*true} & {*found}) for true, found in pairs)
    predicted, wanted = sum(len(set(found)) for _, found in pairs), sum(len(set(true)) for true, _ in pairs)
    return _scores(hits / predicted if predicted else 0.0, hits / wanted if wanted else 0.0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _scores(precision: float, recall: float) -> Scores:
    both = precision + recall
    return Scores(100 * precision, 100 * recall, 100 * 2 * precision * recall / both if both else 0.0)
