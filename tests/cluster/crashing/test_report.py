"""The report of a run: figures, the first violation by name, and the line of JSON."""

from __future__ import annotations

import json
from pathlib import Path

from cluster.crashing.checker import Violation
from cluster.crashing.events import Answered, Ended, Expanded, Log, Pointed, Struck, Trained
from cluster.crashing.report import answered_share, lines


def answered(sent: float, body: dict[str, str] | None, tries: int = 1) -> Answered:
    return Answered(sent + 2, sent, "q", "default", 20, body, tries)


def test_the_worst_five_minutes_count() -> None:
    good, bad = [answered(n, {"bundle": "one"}) for n in range(600)], [answered(301.5, None)]
    assert answered_share(good) == 1.0
    assert answered_share(good + bad) == 300 / 301
    assert answered_share([]) == 1.0


def test_the_report_counts_and_ends_with_json(tmp_path: Path) -> None:
    with Log(tmp_path / "events.jsonl") as log:
        for event in (
            Pointed(0.0, "one"),
            answered(1.0, {"bundle": "one"}, tries=3),
            Struck(5.0, "raylet", "node"),
            Struck(10.0, "worker", ""),
            Ended(11.0, "batch", -9, True),
            Expanded(12.0, "out", ["q0"], {}, [], 32, 16),
            Trained(20.0, 4.0, 60, 15, 15),
        ):
            log.add(event)
    *told, last = lines(log, [Violation(3.0, "mixed", "q0 of two")], 7, 60)
    text = "\n".join(told)
    assert "seed 7, 60 s, 1 faults" in told[0]
    assert "1 raylet; 1 met nothing" in text
    assert "rows lost 32, made again 16" in text
    assert "VIOLATED mixed" in told[-1]
    figures = json.loads(last)
    assert (figures["seed"], figures["rows_again"], figures["resumed"]) == (7, 16, 1)
    assert figures["first_violated"] == "mixed"
    assert figures["violated"] == {"mixed": 1}
    assert not figures["holds"]
