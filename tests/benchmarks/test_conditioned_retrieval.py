"""The settings that conditioned retrieval is compared in: short recalls are as short as they say."""

from __future__ import annotations

import pytest

from benchmarks.conditioned_retrieval import RECALLED, halves_of, settings
from engine.evaluation.metrics import CUTOFFS
from engine.queries.formats import LabelledQuery
from engine.query import Query
from engine.stages.retrieve import Retrieve


def test_queries_want_no_more_than_the_shortest_recall() -> None:
    """A stage keeps as many as a query wants; queries want 200 unless told otherwise."""
    queries = [LabelledQuery(Query(str(i), (0,)), "a class") for i in range(12)]
    halves = halves_of(queries, 3)
    ids = {half: [one.query.id for one in own.queries] for half, own in halves.items()}
    assert ids == {"even": ["0", "6"], "odd": ["3", "9"]}
    wanted = {one.query.top_k for own in halves.values() for one in own.queries}
    assert wanted == {CUTOFFS[-1]}
    assert min(RECALLED) >= CUTOFFS[-1]


@pytest.mark.parametrize(("most", "recalled"), [(101, {100}), (250, {100, 150, 200})])
def test_settings_recall_fewer_than_there_are(most: int, recalled: set[int]) -> None:
    """Recalling every entity would be the authors' way, which is measured apart."""
    first = [pipeline.stages[0] for _, pipeline in settings(most)]
    assert {stage.k for stage in first if isinstance(stage, Retrieve)} == recalled
