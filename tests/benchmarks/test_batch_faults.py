"""What the benchmark of a lost node shows of its runs."""

from __future__ import annotations

import json

import pytest

from benchmarks.batch_faults import Outcome, show

CALM = [Outcome(100.0, 0, 0, 0, 0), Outcome(102.0, 0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("hit", "holds"),
    [
        (Outcome(150.0, 0, 0, 0, 0), True),
        (Outcome(150.0, 1, 0, 0, 0), False),
        (Outcome(150.0, 0, 1, 0, 0), False),
        (Outcome(150.0, 0, 0, 1, 0), False),
        (Outcome(150.0, 0, 0, 0, 0, "error: dead"), False),
        (Outcome(240.0, 0, 0, 0, 0), False),
    ],
)
def test_the_bar_holds_where_nothing_is_lost_in_time(
    hit: Outcome, holds: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    show(CALM, [Outcome(140.0, 0, 0, 0, 0), hit], 20_000)
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["holds"] is holds
    assert figures["worst"] == pytest.approx(hit.seconds / (101 * 1.35), abs=1e-3)
