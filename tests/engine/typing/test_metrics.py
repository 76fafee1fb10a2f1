"""The measures of types, against a case by hand and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from engine.errors import UserError
from engine.typing.metrics import macro_scores, measure_types, micro_scores, strict_accuracy

BY_HAND = [
    (["person", "artist"], ["person", "artist"]),
    (["person", "artist", "man"], ["person", "city"]),
    (["place"], ["person"]),
    (["place", "city"], []),
]


def test_a_case_by_hand() -> None:
    assert strict_accuracy(BY_HAND) == 25
    # P: 1, 1/2, 0 of three mentions with predictions; R: 1, 1/3, 0, 0 of four.
    macro = macro_scores(BY_HAND)
    assert macro.precision == pytest.approx(50)
    assert macro.recall == pytest.approx(100 / 3)
    assert macro.f1 == pytest.approx(40)
    # 3 hits of 5 predicted and 8 true.
    micro = micro_scores(BY_HAND)
    assert micro == pytest.approx((60, 37.5, 100 * 6 / 13))


def test_paths_hold_their_parents() -> None:
    scores = measure_types([(["/person/artist"], ["/person/artist/author"]), (["/place"], ["/place"])])
    assert scores.strict == 50
    assert scores.macro.precision == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert scores.macro.recall == 100
    assert scores.micro.precision == pytest.approx(75)
    assert scores.mentions == 2
    with pytest.raises(UserError, match="no mention to measure types on"):
        measure_types([])


def plain_loop(pairs: list[tuple[list[str], list[str]]]) -> tuple[float, ...]:
    """Return strict accuracy, macro P, R, F1 and micro P, R, F1, label by label."""
    same = p = r = with_p = with_r = hit = found = wanted = 0.0
    for true, predicted in pairs:
        common = sum(1 for label in predicted if label in true)
        same += common == len(predicted) == len(true)
        if predicted:
            with_p, p = with_p + 1, p + common / len(predicted)
        if true:
            with_r, r = with_r + 1, r + common / len(true)
        hit, found, wanted = hit + common, found + len(predicted), wanted + len(true)
    p, r, mp, mr = p / with_p, r / with_r, hit / found, hit / wanted
    return tuple(
        100 * x for x in (same / len(pairs), p, r, 2 * p * r / (p + r), mp, mr, 2 * mp * mr / (mp + mr))
    )


@pytest.mark.parametrize("seed", range(5))
def test_as_a_plain_loop(seed: int) -> None:
    random = np.random.default_rng(seed)
    labels = np.array(["a", "b", "c", "d", "e"])
    pairs = [
        (labels[random.random(5) < 0.4].tolist(), labels[random.random(5) < 0.5].tolist()) for _ in range(40)
    ]
    scores = measure_types(pairs)
    assert [scores.strict, *scores.macro, *scores.micro] == pytest.approx(list(plain_loop(pairs)))
