"""Figures of methods that were not all measured on the same queries."""

from __future__ import annotations

from typing import Any

import pytest

from engine.evaluation.comparison import Row
from engine.evaluation.metrics import CUTOFFS
from engine.evaluation.plots import available, plots

pytestmark = pytest.mark.skipif(not available(), reason="matplotlib is the extra `report`")


def row(method: str, classes: tuple[str, ...], tail: dict[str, int]) -> Row:
    columns = {f"PosMAP@{k}": 50.0 for k in CUTOFFS} | {"PosMAP": 50.0}
    return {
        "method": method,
        "overall": columns,
        "intervals": {name: [40.0, 60.0] for name in columns},
        "by_class": dict.fromkeys(classes, columns),
        "tail": [
            {"sentences": name, "truth": n, "found": n, "share": 100.0 if n else None}
            for name, n in tail.items()
        ],
    }


def test_a_sample_may_lack_a_class_and_a_group_of_entities() -> None:
    whole = row("whole", ("a", "b"), {"0": 2, "1": 3, "2-4": 1})
    sampled = row("sampled", ("b",), {"0": 0, "1": 1, "2-4": 0})
    document: dict[str, Any] = {"negatives": False, "statistics": {"baseline": "whole"}, "sweeps": []}
    drawn = list(plots(document | {"rows": [whole, sampled]}))
    assert [plot.name for plot in drawn] == ["classes", "curves", "tail"]
    drawn = list(plots(document | {"rows": [sampled, whole], "statistics": {"baseline": "sampled"}}))
    assert [plot.name for plot in drawn] == ["classes", "curves", "tail"]
