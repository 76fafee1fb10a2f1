"""Say how probable it is that an entity of an answer belongs to the set, and where the set ends.

A score tells which of two entities is nearer to the seeds, not whether either belongs. Scores of one method
are alike over queries, though: with s the score of an entity and t the mean of the :data:`FIRST` best scores
of its list,

    p = sigmoid(a + b s + c s / max(t, :data:`LEAST`) + d t),    b, c >= 0

so within a list a higher score never has a lower probability. The constants are fitted by logistic
regression to lists of which it is known what belongs, the first :data:`FITTED` entities of each.

The proposed set is the beginning of the list whose expected F1 is the highest. With S the sum of the first
:data:`FITTED` probabilities, of the first k <= FITTED it is taken as 2 (p_1 + ... + p_k) / (k + S): further
down nothing was fitted, and many small probabilities that are a little too large add up.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Scores
from engine.storage.bundle import Bundle

MEMBERSHIP = "membership.json"
"""A bundle's file: the constants of each method that was calibrated."""

FIRST = 5
LEAST = 0.02
"""Least mean of the first scores that others are divided by: one near zero says nothing."""

FITTED = 200
BINS = 10

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Constants(NamedTuple):
    """The constants a, b, c, d of the formula."""

    bias: float
    score: float
    relative: float
    level: float


CONSTANTS: Mapping[str, Constants] = {"default": Constants(-0.04, 22.57, 0.27, -17.12)}
"""Those of bundles that have none of their own. Fitted to queries with even numbers of wikispeedia-mini."""


class Reliability(NamedTuple):
    """What probabilities say against what is so.

    Attributes:
        said: mean probability of each bin of equal width that holds any, ascending.
        true: share of entities in it that belong.
        entities: how many it holds.
        error: the expected calibration error: the mean of their differences, weighted by entities.
    """

    said: Floats
    true: Floats
    entities: npt.NDArray[np.int64]
    error: float


class ProposedF1(NamedTuple):
    """F1 of a proposed set, and of the best beginning of the same list in hindsight."""

    proposed: float
    best: float


def probabilities(scores: Scores, constants: Constants) -> Floats:
    """Return the probability that each entity of a list (scores best first, [n]) belongs to the set."""
    return _sigmoid(constants.bias + _features(scores) @ np.array(constants[1:]))


def proposed(probability_N: Floats) -> int:
    """Return how many entities from the first on are proposed as the set; at least one, if there is any."""
    fitted = probability_N[:FITTED]
    return int(_f1(np.cumsum(fitted), float(fitted.sum())).argmax()) + 1 if len(fitted) else 0


def read_constants(bundle: Bundle, method: str) -> Constants:
    """Return the constants of a method: the bundle's, else those that come with the program.

    Raises:
        BundleError: there are none.
    """
    own = all_constants(bundle)
    found = own.get(method) or CONSTANTS.get(method)
    if found is None:
        raise BundleError(
            f"bundle {bundle.id}: nothing says how probable an answer of {method!r} is; "
            f"run `seedset calibrate --method {method} --queries QUERIES`"
        )
    return found


def all_constants(bundle: Bundle) -> dict[str, Constants]:
    """Return what a bundle has, by method; empty where nothing was calibrated.

    Raises:
        BundleError: the file is none of ours.
    """
    if MEMBERSHIP not in bundle.manifest.files:
        return {}
    try:
        held = json.loads(bundle.path(MEMBERSHIP).read_text(encoding="utf-8"))
        return {name: Constants(*map(float, values)) for name, values in held.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"bundle {bundle.id}: {MEMBERSHIP} cannot be read: {error}") from None


def write_constants(path: Path, constants: Mapping[str, Constants]) -> None:
    """Write a bundle's file."""
    path.write_text(json.dumps(constants, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def fit(lists: Sequence[tuple[Scores, Flags]]) -> Constants:
    """Return the constants that tell best what belongs.

    Args:
        lists: scores, best first, and which entities belong, [n] each.

    Raises:
        ValueError: nothing belongs, or everything does.
    """
    from scipy.optimize import minimize  # takes long to import, and nothing else here needs it

    features = np.concatenate([_features(scores[:FITTED]) for scores, _ in lists])
    true = np.concatenate([flags[:FITTED] for _, flags in lists])
    if true.all() or not true.any():
        raise ValueError("of the entities of these lists none belongs, or all do")
    width = features.std(axis=0) + 1e-9
    design = np.column_stack([np.ones(len(features)), features / width])

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits = design @ weights
        gradient = design.T @ (_sigmoid(logits) - true) / len(true)
        return float(np.mean(np.logaddexp(0, logits) - true * logits)), gradient

    bounds = [(None, None), (0, None), (0, None), (None, None)]
    found = minimize(loss, np.zeros(4), jac=True, method="L-BFGS-B", bounds=bounds)
    bias, *slopes = found.x
    return Constants(float(bias), *(float(slope) for slope in slopes / width))


def reliability(probability_N: Floats, true_N: Flags) -> Reliability:
    """Return how probabilities and what is so agree, over entities of whatever lists."""
    places = np.minimum((probability_N * BINS).astype(np.int64), BINS - 1)
    entities = np.bincount(places, minlength=BINS)
    held = entities > 0
    said, true = (
        np.bincount(places, weights=values, minlength=BINS)[held] / entities[held]
        for values in (probability_N, true_N)
    )
    error = float(np.abs(said - true) @ entities[held] / max(1, len(probability_N)))
    return Reliability(said, true, entities[held], error)


def proposed_f1(probability_N: Floats, true_N: Flags, size: int) -> ProposedF1:
    """Return F1 of what is proposed of a list, and of its best beginning; ``size``: entities that belong."""
    values = _f1(np.cumsum(true_N), size)
    return ProposedF1(float(values[proposed(probability_N) - 1]), float(values.max()))


def f1_above(probability_N: Floats, true_N: Flags, size: int, least: float) -> float:
    """Return F1 of the entities of a list with at least a probability; of the first one, if none has it."""
    end = max(1, int((probability_N >= least).sum()))
    return 2 * int(true_N[:end].sum()) / (end + size)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * values), np.float64)


def _features(scores: Scores) -> Floats:
    """Return score, relative score and level of each entity of a list, [n, 3]."""
    own = scores.astype(np.float64)
    level = float(own[:FIRST].mean()) if len(own) else 0.0
    return np.column_stack([own, own / max(level, LEAST), np.full(len(own), level)])


def _f1(hits_N: npt.NDArray[np.number], size: float) -> Floats:
    """Return F1 of the first 1, 2, … N entities, given how many of them belong."""
    return np.asarray(2 * hits_N / (np.arange(1, len(hits_N) + 1) + size), np.float64)
