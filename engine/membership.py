"""Say how probable it is that an entity of an answer belongs to the set, and where the set ends.

A score tells which of two entities is nearer to the seeds, not whether either belongs. With s the score of
an entity and h the cohesion of the positive seeds (:func:`cohesion`: their mean cosine to each other; where
there are not two seeds, the mean of the :data:`FIRST` best scores of the list; at least 0),

    p = sigmoid(a + b s + c h + d h s),    b, d >= 0

so within a list a higher score never has a lower probability. Seeds that are like each other are of a narrow
set, to which entities that are a little like them do not belong. The constants are fitted by logistic
regression to lists of which it is known what belongs, the first :data:`FITTED` entities of each; every
class counts alike, however many lists it has.

The proposed set is the beginning of the list whose expected F1 is the highest. With S the sum of the first
:data:`FITTED` probabilities, of the first k <= FITTED it is taken as 2 (p_1 + ... + p_k) / (k + S): further
down nothing was fitted, and many small probabilities that are a little too large add up.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.errors import BundleError
from engine.query import Scores, Weights
from engine.storage.bundle import Bundle

MEMBERSHIP = "membership.json"
"""A bundle's file: the constants of each method that was calibrated."""

FIRST = 5
FITTED = 200
BINS = 10

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Vectors = npt.NDArray[np.float32]


class Constants(NamedTuple):
    """The constants a, b, c, d of the formula."""

    bias: float
    score: float
    cohesion: float
    cohesive_score: float


class Answered(NamedTuple):
    """A query's list: its class, scores (best first), which entities belong, and the seeds' cohesion.

    ``size`` is how many entities there are to find; ``cohesion`` None: there are not two seeds to compare.
    """

    label: str
    scores: Scores
    true: Flags
    size: int
    cohesion: float | None = None


CONSTANTS: Mapping[str, Constants] = {"default": Constants(0.055, 21.4, -11.7, 0.0)}
"""Those of bundles that have none of their own. Fitted to queries with even numbers of wikispeedia."""


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


def cohesion(seeds_PD: Vectors, weights_P: Weights | None = None) -> float | None:
    """Return the mean cosine of a query's positive seeds to each other, by pairs.

    Args:
        seeds_PD: their unit vectors; rows of zeros, seeds without a vector, are left out.
        weights_P: of the seeds: a pair has the product of its two; None: all alike.

    Returns:
        None where there are not two seeds.
    """
    present_P = seeds_PD.any(axis=1)
    used = seeds_PD[present_P].astype(np.float64)
    if len(used) < 2:
        return None
    weights = np.ones(len(used)) if weights_P is None else weights_P[present_P].astype(np.float64)
    # Of the square of the weighted sum, the part that is not each seed with itself.
    whole = float(np.square(weights @ used).sum())
    alone = float(np.square(weights) @ np.square(used).sum(axis=1))
    return (whole - alone) / float(weights.sum() ** 2 - np.square(weights).sum())


def probabilities(scores: Scores, seed_cohesion: float | None, constants: Constants) -> Floats:
    """Return the probability that each entity of a list (scores best first, [n]) belongs to the set."""
    return _sigmoid(constants.bias + _features(scores, seed_cohesion) @ np.array(constants[1:]))


def proposed(probability_N: Floats) -> int:
    """Return how many entities from the first on are proposed as the set; at least one, if there is any."""
    fitted = probability_N[:FITTED]
    return int(_f1(np.cumsum(fitted), float(fitted.sum())).argmax()) + 1 if len(fitted) else 0


def read_constants(bundle: Bundle, method: str) -> Constants:
    """Return the constants of a method: the bundle's, else those that come with the program.

    Raises:
        BundleError: there are none, or they are of another version's formula.
    """
    found = _held(bundle).get(method) or CONSTANTS.get(method)
    again = f"run `seedset calibrate --method {method} --queries QUERIES`"
    if found is None:
        raise BundleError(
            f"bundle {bundle.id}: nothing says how probable an answer of {method!r} is; {again}"
        )
    if not isinstance(found, Constants):
        raise BundleError(
            f"bundle {bundle.id}: {MEMBERSHIP} has constants of {method!r} for another formula than this "
            f"version's ({', '.join(Constants._fields)}); {again} again"
        )
    return found


def all_constants(bundle: Bundle) -> dict[str, Constants]:
    """Return what a bundle has, by method; empty where nothing was calibrated.

    Those of another version's formula are left out: :func:`read_constants` refuses them.

    Raises:
        BundleError: the file is none of ours.
    """
    return {name: found for name, found in _held(bundle).items() if isinstance(found, Constants)}


def outdated(bundle: Bundle) -> list[str]:
    """Return the methods of which a bundle has constants of another version's formula."""
    return [name for name, found in _held(bundle).items() if not isinstance(found, Constants)]


def _held(bundle: Bundle) -> dict[str, Constants | Collection[object]]:
    """Return the constants of a bundle's file by method, as they are where they are of another formula."""
    if MEMBERSHIP not in bundle.manifest.files:
        return {}
    try:
        held = json.loads(bundle.path(MEMBERSHIP).read_text(encoding="utf-8"))
        return {
            name: Constants(**{k: float(v) for k, v in given.items()})
            if isinstance(given, dict) and given.keys() == set(Constants._fields)
            else [*given]
            for name, given in held.items()
        }
    except (ValueError, TypeError, AttributeError) as error:
        raise BundleError(f"bundle {bundle.id}: {MEMBERSHIP} cannot be read: {error}") from None


def write_constants(path: Path, constants: Mapping[str, Constants]) -> None:
    """Write a bundle's file."""
    named = {method: own._asdict() for method, own in constants.items()}
    path.write_text(json.dumps(named, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def fit(lists: Sequence[Answered]) -> Constants:
    """Return the constants that tell best what belongs; every class counts alike.

    Raises:
        ValueError: nothing belongs, or everything does.
    """
    from scipy.optimize import minimize  # takes long to import, and nothing else here needs it

    features = np.concatenate([_features(one.scores[:FITTED], one.cohesion) for one in lists])
    true = np.concatenate([one.true[:FITTED] for one in lists])
    if true.all() or not true.any():
        raise ValueError("of the entities of these lists none belongs, or all do")
    of_class = Counter(one.label for one in lists)
    weights = np.concatenate([np.full(len(one.scores[:FITTED]), 1 / of_class[one.label]) for one in lists])
    weights /= weights.sum()
    width = features.std(axis=0) + 1e-9
    design = np.column_stack([np.ones(len(features)), features / width])

    def loss(constants: Floats) -> tuple[float, Floats]:
        logits = design @ constants
        gradient = design.T @ (weights * (_sigmoid(logits) - true))
        return float(weights @ (np.logaddexp(0, logits) - true * logits)), gradient

    bounds = [(None, None), (0, None), (None, None), (0, None)]
    found = minimize(loss, np.zeros(len(bounds)), jac=True, method="L-BFGS-B", bounds=bounds)
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


def proposed_f1(probability_N: Floats, one: Answered) -> ProposedF1:
    """Return F1 of what is proposed of a list, and of its best beginning."""
    values = _f1(np.cumsum(one.true), one.size)
    return ProposedF1(float(values[proposed(probability_N) - 1]), float(values.max()))


def f1_above(probability_N: Floats, true_N: Flags, size: int, least: float) -> float:
    """Return F1 of the entities of a list with at least a probability; of the first one, if none has it."""
    end = max(1, int((probability_N >= least).sum()))
    return 2 * int(true_N[:end].sum()) / (end + size)


def _sigmoid(values: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * values), np.float64)


def _features(scores: Scores, seed_cohesion: float | None) -> Floats:
    """Return s, h and h s of each entity of a list, [n, 3]."""
    own = scores.astype(np.float64)
    level = float(own[:FIRST].mean()) if len(own) else 0.0
    held = max(0.0, level if seed_cohesion is None else seed_cohesion)
    return np.column_stack([own, np.full(len(own), held), held * own])


def _f1(hits_N: npt.NDArray[np.number], size: float) -> Floats:
    """Return F1 of the first 1, 2, … N entities, given how many of them belong."""
    return np.asarray(2 * hits_N / (np.arange(1, len(hits_N) + 1) + size), np.float64)
