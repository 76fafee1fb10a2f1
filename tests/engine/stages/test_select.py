"""The choice of a list as a whole, against plain loops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.methods import METHODS
from engine.query import Query, Ranking, Selection
from engine.retrieval.index import unit
from engine.stages.base import Pipeline
from engine.stages.select import Select, chosen
from tests.support.bundles import method_bundle


def plain(
    scores: Sequence[float],
    vectors: np.ndarray,
    groups: Sequence[Sequence[str]] | None,
    asked: Selection,
    wanted: int,
) -> list[int]:
    """Return the places that are chosen: at every step all that is left is weighed anew."""
    low, high = min(scores, default=0), max(scores, default=0)
    relevance = [(s - low) / (high - low) if high > low else 0.0 for s in scores]
    taken: list[int] = []

    def is_full(place: int) -> bool:
        if groups is None:
            return False
        own = groups[place]
        if not own:
            return sum(not groups[other] for other in taken) >= asked.per_group
        return any(sum(value in groups[other] for other in taken) >= asked.per_group for value in own)

    def marginal(place: int) -> float:
        nearest = max((float(vectors[place] @ vectors[other]) for other in taken), default=0.0)
        return (1 - asked.diversity) * relevance[place] - asked.diversity * nearest

    while len(taken) < wanted:
        left = [place for place in range(len(scores)) if place not in taken and not is_full(place)]
        if not left:
            break
        taken.append(max(left, key=lambda place: (marginal(place), -place)) if asked.diversity else left[0])
    return taken


@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 12),
    st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 14),
)
@settings(max_examples=150)
def test_the_choice_equals_plain_loops(
    seed: int, n: int, diversity: float, per_group: int, grouped: bool, wanted: int
) -> None:
    random = np.random.default_rng(seed)
    scores = np.sort(random.integers(0, 6, n).astype(np.float32))[::-1]
    vectors = np.vstack([unit(random.normal(size=(n, 3))), np.zeros((1, 3))])[:n].astype(np.float32)
    groups = [list(random.choice(["a", "b", "c"], random.integers(0, 3), replace=False)) for _ in range(n)]
    asked = Selection(group_by="g" if grouped else "", per_group=per_group, diversity=diversity)
    ranking = Ranking(np.arange(n, dtype=np.int32), scores)
    found = chosen(ranking, asked, groups if grouped else None, vectors if diversity else None, wanted)
    expected = plain(scores.tolist(), vectors.astype(np.float64), groups if grouped else None, asked, wanted)
    assert found.ids.tolist() == expected
    assert found.scores.tolist() == scores[expected].tolist()
    if diversity:
        # The first is compared with nothing; from there on similarities only grow.
        assert np.all(np.diff(found.evidence["marginal"][1:]) <= 1e-6)


def test_the_least_score_holds_and_no_attribute_is_a_group(tmp_path: Path) -> None:
    kinds = [{"colour": [("red", "blue")[i % 2]]} if i < 20 else {} for i in range(40)]
    bundle = method_bundle(tmp_path, n=40, d=8, attributes=kinds)
    run = Pipeline((*METHODS["joint"].stages, Select())).open(bundle)
    whole, few = run(
        [Query("a", (1,), top_k=39), Query("b", (1,), selection=Selection(group_by="colour", per_group=2))]
    )
    colours = [kinds[i].get("colour", ["none"])[0] for i in few.ranking.ids.tolist()]
    assert sorted(colours) == ["blue", "blue", "none", "none", "red", "red"]
    least = float(whole.ranking.scores[9])
    (cut,) = run([Query("c", (1,), selection=Selection(min_score=least, diversity=0.5))])
    assert sorted(cut.ranking.ids.tolist()) == sorted(whole.ranking.ids[:10].tolist())


def test_without_vectors_there_are_groups_alone(tmp_path: Path) -> None:
    bundle = method_bundle(tmp_path, n=20, d=8)
    stage = Select(view=None)
    assert stage.needs() == ()
    run = Pipeline((*METHODS["joint"].stages, stage)).open(bundle)
    (found,) = run([Query("q", (1,), selection=Selection(group_by="parity"))])
    assert len(found.ranking) == 2
    assert pytest.approx(found.ranking.scores[0]) == max(found.ranking.scores)
