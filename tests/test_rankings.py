"""No method's answers change unless a commit means to change them (tests/data/rankings.json)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from jobs.workers import executor
from tests.support.rankings import KEPT, answers, make_world

CLOSE = 1e-3
"""A kept score is met up to this, relative to the largest of its list, and entities whose kept scores are
closer may change places: scores went through three short trainings, and processors round differently."""

BY_RANK = ("multiexpan", "multiexpan+segments", "multiexpan+joint")
"""Methods whose scores are made of ranks: a tie in one of many short lists moves an entity by a step."""

STRAYS = 1
"""Places of a list of such a method that may differ."""


def differences(kept: Sequence[Sequence[float]], found: Sequence[Sequence[float]]) -> list[str]:
    """Return where two lists of (id, score) differ by more than rounding."""
    if len(kept) != len(found):
        return [f"{len(found)} answers, not {len(kept)}"]
    size = max((abs(score) for _, score in kept), default=1.0)
    scores = {int(entity): score for entity, score in kept}
    last = kept[-1][1] if kept else 0.0
    said = []
    for rank, ((entity, score), (other, new)) in enumerate(zip(kept, found, strict=True), 1):
        if abs(score - new) > CLOSE * size:
            said.append(f"rank {rank}: score {new}, not {score}")
        if entity != other and abs(scores.get(int(other), last) - score) > CLOSE * size:
            said.append(f"rank {rank}: entity {other:g}, not {entity:g}")
    return said


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_method_answers_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "has_cluster", lambda: False)  # another test's
    kept = json.loads(KEPT.read_text(encoding="utf-8"))
    found = answers(make_world(tmp_path), kept)  # a new method has no earlier answers
    said = {
        f"{method}, {query}": differences(kept[method][query], found[method][query])
        for method in kept
        for query in kept[method]
    }
    strays = {name: STRAYS if name.partition(",")[0] in BY_RANK else 0 for name in said}
    assert {name: lines for name, lines in said.items() if len(lines) > strays[name]} == {}


def test_a_changed_answer_is_seen_and_a_tie_is_not() -> None:
    kept = [[1, 2.0], [2, 1.000001], [3, 1.0]]
    assert differences(kept, [[1, 2.0], [3, 1.0], [2, 1.000001]]) == []
    assert differences(kept, [[2, 2.0], [1, 1.000001], [3, 1.0]]) != []
    assert differences(kept, [[1, 2.0], [2, 1.1], [3, 1.0]]) != []
    assert differences(kept, kept[:2]) != []
