"""What is compared: the same search but for its beams and its look-ahead."""

from __future__ import annotations

from benchmarks.lookahead import generating
from engine.evaluation.metrics import CUTOFFS
from engine.stages.generate import Generate


def test_searches_differ_in_beams_and_look_ahead_alone() -> None:
    full, _ = generating(40, 10, 0, "mask").stages
    few, _ = generating(10, 10, 2, "joint").stages
    assert isinstance(full, Generate)
    assert full.model_copy(update={"beams": 10, "lookahead": 2.0, "lookahead_view": "joint"}) == few
    assert (full.k, full.max_rounds, full.lookahead) == (CUTOFFS[-1], 10, 0)
